"""ingest: HTTP in, raw events out.  What is judged stands in signature.py, sources.py and shared/redact.py."""

import os
import sys
import time

import nats.errors
import nats.js.errors
from faststream.asgi import AsgiFastStream
from prometheus_client import CollectorRegistry

from ingest.commit import Commit
from ingest.forgetting import Forgetting
from ingest.keep import Keep
from ingest.metrics import Metrics
from ingest.quarantine import Quarantine
from ingest.settings import Settings
from ingest.sources import ROUTES
from ingest.spool import Spool
from ingest.webhook import ACCEPTED, REFUSED, Webhooks
from shared import bus, log, memory, service, spans
from shared.config import Config
from shared.connector_file import ConfigError, load
from shared.counter import total
from shared.credentials import environment
from shared.event import rfc3339
from shared.heartbeat import IngestCounts
from shared.login import Login, login_as
from shared.otel import Otel
from shared.settings import SettingsError
from shared.settings import load as load_settings
from shared.topology import TWILIO

READY_S = 1.0  # how long one look at the stream counts
LARGE_BYTES = 1024**2  # a body has 4 MiB at most, and 2 KB as a rule


def create_app(settings: Settings, config: Config, login: Login) -> AsgiFastStream:
    """Build the service; nothing runs yet but the spool is open."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    broker = bus.connect(settings.nats_url, service="ingest", login=login)
    spool = Spool(settings.data_dir / "ingest", bytes_max=settings.spool_bytes_max)
    seen, away = float("-inf"), ""

    async def look() -> str:
        nonlocal seen
        connection = bus.client(broker)
        if connection is None:
            return "no connection to NATS"
        if time.monotonic() - seen > READY_S:
            try:
                await connection.jetstream(timeout=1).stream_info(TWILIO.name)
            except (nats.errors.Error, nats.js.errors.Error, OSError):
                return f"the stream {TWILIO.name} does not answer: is `tajo bootstrap` done?"
            seen = time.monotonic()
        return ""

    async def ready() -> str:
        nonlocal away
        away = await look()
        return f"{away}; and no spool: {spool.why}" if away and not await spool.usable() else ""

    def note() -> str:
        if spool.messages or away:
            held = f"{spool.messages} messages in {spool.bytes} of {spool.bytes_max} bytes"
            return f"spooling: {away or keep.refusal or 'the log is back'}; {held}"
        return f"no spool: {spool.why}" if spool.why else ""

    publish = bus.Publisher(broker).publish
    keep = Keep(publish, look, spool, metrics)
    forgetting = Forgetting(broker, spool)
    keep.forgets = forgetting.forgets
    quarantine = Quarantine(publish, metrics)
    webhooks = Webhooks(
        settings.judge(config), Commit(keep.put), quarantine, metrics, api_key=settings.api_key
    )
    routes = [(path, webhooks.route(path)) for path in ROUTES]

    def counts() -> IngestCounts:
        accepted, refused = (total(metrics.webhooks, "verdict", words) for words in (ACCEPTED, REFUSED))
        last_ms = webhooks.last_accepted_ms
        return IngestCounts(
            accepted=accepted,
            refused=refused,
            unavailable=total(metrics.webhooks) - accepted - refused,
            last_accepted=rfc3339(last_ms) if last_ms else None,
            spooled=spool.messages,
            spooled_bytes=spool.bytes,
        )

    app = service.build(
        broker,
        name="ingest",
        counts=counts,
        ready=ready,
        note=note,
        registry=registry,
        routes=routes,
        work=[keep.drain, quarantine.store, forgetting.forever],
    )
    app.after_shutdown(spool.close)
    return app


def main() -> None:
    """Run until SIGTERM.  Exit code 78: the settings or the connector file cannot be used, or the port is in use."""
    try:
        settings = load_settings(Settings, environment(os.environ))
        config = load(settings.config)
        otel = load_settings(Otel, os.environ)
        login = login_as("ingest", settings.nats_url, os.environ)
        listening = service.listen("TAJO_INGEST_PORT", settings.host, settings.port)
    except (SettingsError, ConfigError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
        sys.exit(os.EX_CONFIG)
    memory.give_back(LARGE_BYTES)
    log.set_up("ingest", level="verbose" if config.flex.debug else config.flex.log_level)
    spans.set_up("ingest", otel)
    service.serve(create_app(settings, config, login), listening)
