# One image a service: docker build --build-arg SERVICE=ingest .
# Plain instructions only: the legacy builder must do.
FROM python:3.13-slim AS build
ARG SERVICE
RUN pip install --no-cache-dir --root-user-action=ignore 'uv>=0.9,<1'
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /app
COPY pyproject.toml uv.lock ./
COPY shared shared
COPY services services
COPY cli cli
COPY sandbox sandbox
RUN uv sync --frozen --no-dev --no-editable --package tajo-${SERVICE}

FROM python:3.13-slim
WORKDIR /app
COPY --from=build /app/.venv /app/.venv
COPY config config
RUN mkdir /data /credentials && chown 10001:10001 /data /credentials
USER 10001:10001
VOLUME /data
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 TAJO_DATA_DIR=/data TAJO_CONFIG=/app/config/tajo.yaml
