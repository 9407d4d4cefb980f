"""poller: Twilio's REST API in, raw events out.  What is judged stands in answer.py, rates.py and items.py."""

import asyncio
import itertools
import os
import re
import sys
import time
from collections.abc import Coroutine
from contextlib import closing

import nats.errors
import nats.js.errors
import structlog
from faststream.asgi import AsgiFastStream
from prometheus_client import CollectorRegistry

from poller.account import discover
from poller.backfills import Backfills
from poller.conversations import Conversations
from poller.cursors import Cursors
from poller.endpoints import LIMITS
from poller.heard import Heard
from poller.intake import Intake
from poller.messages import Messages
from poller.metrics import Metrics
from poller.poll import Poll
from poller.rates import Rates
from poller.resource import Resource, Source
from poller.settings import Settings
from poller.snapshots import LISTS, Snapshots
from poller.statistics import Statistics
from poller.tasks import Tasks
from poller.twilio import Credentials, Twilio, TwilioError
from shared import bus, service
from shared.bus import NotPublishedError
from shared.config import Config, ConfigError, load
from shared.counter import total
from shared.credentials import environment
from shared.event import rfc3339
from shared.heartbeat import PollerCounts
from shared.lease import Lease
from shared.log import set_up
from shared.settings import SettingsError, secure_url
from shared.settings import load as load_settings
from shared.verdict import Pause

AGAIN_S = 5.0  # after a poll that did not work; then with the next token, while one is rotated

log = structlog.get_logger()


def create_app(settings: Settings, config: Config) -> AsgiFastStream:
    """Build the service; nothing runs yet."""
    broker = bus.connect(settings.nats_url, service="poller")
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    lease = Lease(broker, "poller", settings.data_dir / "poller")
    publish = bus.Publisher(broker, may=lease.held).publish
    told = config.flex.poller
    rates = Rates({**LIMITS, **told.rates}, told.rate_fraction)
    credentials, idle = credentials_of(settings, config)
    stuck, behind = "", "has not polled yet"
    last_ms = 0

    def polled(refused: str) -> None:
        nonlocal stuck, behind, last_ms
        stuck, behind = "", refused
        last_ms = time.time_ns() // 1_000_000

    async def work() -> None:
        nonlocal stuck, behind
        with closing(Heard(settings.data_dir / "poller/heard.sqlite")) as heard:
            intake = Intake(broker, publish, heard, metrics)
            for one in itertools.cycle(credentials):
                twilio = Twilio(one, urls=settings.urls, rates=rates, log_calls=config.flex.log_api_calls)
                try:
                    account = await discover(twilio, told)
                    resources = resources_of(Source(twilio, account, intake, config.flex))
                    polled_ones = [resources[name] for name in resources if name in told.resources]
                    poll = Poll(twilio, polled_ones, Cursors(broker), told, metrics)
                    backfills = Backfills(broker, twilio, list(resources.values()))
                    await _until_one_ends(poll.forever(polled), backfills.forever())
                except TwilioError as error:
                    behind = str(error)
                    stuck = behind if isinstance(error.verdict, Pause) else ""
                except (NotPublishedError, nats.errors.Error, nats.js.errors.Error) as error:
                    behind = str(error) or type(error).__name__
                finally:
                    await twilio.close()
                log.warning("not_polled", why=behind)
                await asyncio.sleep(min(told.interval_s, AGAIN_S))

    async def ready() -> str:
        return stuck or ("" if bus.client(broker) else "no connection to NATS")

    def counts() -> PollerCounts:
        return PollerCounts(
            last_poll=rfc3339(last_ms) if last_ms else None,
            read=total(metrics.read),
            missed=total(metrics.missed),
            unreadable=total(metrics.unreadable),
        )

    return service.build(
        broker,
        name="poller",
        counts=counts,
        ready=ready,
        note=lambda: f"polls nothing: {idle}" if idle else behind,
        registry=registry,
        work=[work] if credentials else [],
        lease=lease,
    )


def resources_of(source: Source) -> dict[str, Resource]:
    """Everything that can be read, by name; `tasks` first."""
    resources: list[Resource] = [kind(source) for kind in (Tasks, Conversations, Messages, Statistics)]
    resources += [Snapshots(name, source) for name in LISTS]
    return {resource.name: resource for resource in resources}


async def _until_one_ends(*works: Coroutine[None, None, None]) -> None:
    """Run these together; when one ends, end the others, and raise what it raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await service.cancel(tasks)


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
    """Run until SIGTERM.  Exit code 78: the settings or the connector file cannot be used."""
    try:
        settings = load_settings(Settings, environment(os.environ))
        config = settings.over(load(settings.config))
        for product, url in settings.urls.items():
            secure_url(f"TAJO_TWILIO_{product.upper()}_URL", url, allow_http=settings.allow_http)
    except (SettingsError, ConfigError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
        sys.exit(os.EX_CONFIG)
    set_up("poller", level="verbose" if config.flex.debug else config.flex.log_level)
    service.serve(create_app(settings, config), host=settings.host, port=settings.port)


if __name__ == "__main__":
    main()
