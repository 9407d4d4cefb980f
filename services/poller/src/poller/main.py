"""poller: Twilio's REST API in, raw events out.  What is judged stands in answer.py, rates.py and items.py."""

import os
import re
import sys

from faststream.asgi import AsgiFastStream
from prometheus_client import CollectorRegistry

from poller.metrics import Limits, Metrics
from poller.settings import Settings
from poller.twilio import Credentials
from poller.work import Work
from shared import bus, service, spans
from shared.config import Config
from shared.connector_file import ConfigError, load
from shared.counter import total
from shared.credentials import environment
from shared.event import rfc3339
from shared.heartbeat import PollerCounts
from shared.lease import Lease
from shared.log import set_up
from shared.login import Login, login_as
from shared.otel import Otel
from shared.settings import SettingsError, make_folder, secure_url
from shared.settings import load as load_settings


def create_app(settings: Settings, config: Config, login: Login) -> AsgiFastStream:
    """Build the service; nothing runs yet."""
    broker = bus.connect(settings.nats_url, service="poller", login=login)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    lease = Lease(broker, "poller", settings.data_dir / "poller")
    credentials, idle = credentials_of(settings, config)
    work = Work(
        broker=broker,
        publish=bus.Publisher(broker, may=lease.held).publish,
        config=config.flex,
        urls=settings.urls,
        credentials=credentials,
        index=settings.data_dir / "poller/heard.sqlite",
        metrics=metrics,
    )

    registry.register(Limits(work.rates))

    async def ready() -> str:
        return work.stuck or ("" if bus.client(broker) else "no connection to NATS")

    def counts() -> PollerCounts:
        return PollerCounts(
            last_poll=rfc3339(work.last_ms) if work.last_ms else None,
            read=total(metrics.read),
            missed=total(metrics.missed),
            unreadable=total(metrics.unreadable),
        )

    return service.build(
        broker,
        name="poller",
        counts=counts,
        ready=ready,
        note=lambda: f"polls nothing: {idle}" if idle else work.behind,
        registry=registry,
        work=[work.forever] if credentials else [],
        lease=lease,
    )


def credentials_of(settings: Settings, config: Config) -> tuple[list[Credentials], str]:
    """What to call Twilio with, best first; or nothing, and why."""
    account_sid = settings.account_sid or config.flex.account_sid
    if not config.flex.poller.enabled:
        return [], "poller.enabled is false"
    if not re.fullmatch(r"AC[0-9a-f]{32}", account_sid):
        return [], "TWILIO_ACCOUNT_SID is not set to an account sid"
    if settings.api_key_sid:
        return [Credentials(account_sid, settings.api_key_sid, settings.api_key_secret)], ""
    tokens = [token.strip() for token in settings.auth_tokens.split(",") if token.strip()]
    if not tokens:
        return [], "neither TWILIO_API_KEY_SID nor TWILIO_AUTH_TOKEN is set"
    return [Credentials(account_sid, account_sid, token) for token in tokens], ""


def main() -> None:
    """Run until SIGTERM.  Exit code 78: the settings or the connector file cannot be used, or the port is in use."""
    try:
        settings = load_settings(Settings, environment(os.environ))
        config = settings.over(load(settings.config))
        otel = load_settings(Otel, os.environ)
        login = login_as("poller", settings.nats_url, os.environ)
        for product, url in settings.urls.items():
            secure_url(f"TAJO_TWILIO_{product.upper()}_URL", url, allow_http=settings.allow_http)
        listening = service.listen("TAJO_POLLER_PORT", settings.host, settings.port)
        make_folder(settings.data_dir, "poller")
    except (SettingsError, ConfigError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
        sys.exit(os.EX_CONFIG)
    set_up("poller", level="verbose" if config.flex.debug else config.flex.log_level)
    spans.set_up("poller", otel)
    service.serve(create_app(settings, config, login), listening)
