# One image a service: docker build --build-arg SERVICE=ingest .
# Plain instructions only: the legacy builder must do.
FROM python:3.13-slim AS build
RUN pip install --no-cache-dir --root-user-action=ignore 'uv>=0.9,<1'
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /app
# What others wrote comes first: one layer for all services, that no change of ours takes away.
COPY pyproject.toml uv.lock ./
COPY shared/pyproject.toml shared/
COPY services/ingest/pyproject.toml services/ingest/
COPY services/mapper/pyproject.toml services/mapper/
COPY services/brevo-sink/pyproject.toml services/brevo-sink/
COPY services/poller/pyproject.toml services/poller/
COPY cli/pyproject.toml cli/
COPY sandbox/pyproject.toml sandbox/
RUN uv sync --frozen --no-dev --no-install-workspace --all-packages
COPY shared shared
COPY services services
COPY cli cli
COPY sandbox sandbox
ARG SERVICE
# pip comes along with sqlite-utils, which runs without it; who runs these images installs nothing.
RUN uv sync --frozen --no-dev --no-editable --package tajo-${SERVICE} && uv pip uninstall --quiet pip

FROM python:3.13-slim
WORKDIR /app
COPY --from=build /app/.venv /app/.venv
COPY config config
COPY deploy/healthy /usr/local/bin/
RUN mkdir /data /credentials /tajo && chown 10001:10001 /data /credentials /tajo
USER 10001:10001
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TAJO_DATA_DIR=/data TAJO_CONFIG=/app/config/tajo.yaml
