"""What the poller does while the lease is its own: polls and backfills, with the credentials that hold."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker

from poller.account import discover
from poller.backfills import Backfills
from poller.conversations import Conversations
from poller.cursors import Cursors
from poller.endpoints import LIMITS, Product
from poller.heard import Heard
from poller.intake import Intake, Publish
from poller.messages import Messages
from poller.metrics import Metrics
from poller.poll import Poll
from poller.rates import Rates
from poller.resource import Resource, Source
from poller.snapshots import LISTS, Snapshots
from poller.statistics import Statistics
from poller.tasks import Tasks
from poller.twilio import Credentials, Twilio, TwilioError
from shared.backfill import VERIFY
from shared.config import TwilioFlex
from shared.publish import NotPublishedError
from shared.service import cancel
from shared.verdict import Pause

AGAIN_S = 5.0  # after a poll that did not work; then with the next token, while one is rotated

_AWAY = (TwilioError, NotPublishedError, nats.errors.Error, nats.js.errors.Error)

log = structlog.get_logger()


class Work:
    """All of it, and how it goes."""

    def __init__(
        self,
        *,
        broker: NatsBroker,
        publish: Publish,
        config: TwilioFlex,
        urls: dict[Product, str],
        credentials: Sequence[Credentials],
        index: Path,
        metrics: Metrics,
    ) -> None:
        """`credentials` are tried in turn; `index` is the file of what was heard."""
        self.stuck = ""  # a person must act: why, and what to do
        self.behind = "has not polled yet"  # what a person should know
        self.last_ms = 0  # when everything was read last
        self._broker = broker
        self._publish = publish
        self._config = config
        self._urls = urls
        self._credentials = credentials
        self._index = index
        self._metrics = metrics
        self.rates = Rates({**LIMITS, **config.poller.rates}, config.poller.rate_fraction)
        self._again_s = min(config.poller.interval_s, AGAIN_S)

    async def forever(self) -> None:
        """Until cancelled."""
        with closing(Heard(self._index)) as heard:
            intake = Intake(self._broker, self._publish, heard, self._metrics)
            for one in itertools.cycle(self._credentials):
                twilio = Twilio(
                    one,
                    urls=self._urls,
                    rates=self.rates,
                    log_calls=self._config.log_api_calls,
                    called=lambda limit, status: self._metrics.calls.labels(limit, status).inc(),
                )
                try:
                    await self._read(twilio, intake)
                except _AWAY as error:
                    self._note(error)
                finally:
                    await twilio.close()
                await asyncio.sleep(self._again_s)

    async def _read(self, twilio: Twilio, intake: Intake) -> None:
        """Poll and backfill; what ends a poll ends no backfill.  Raises what other credentials may mend."""
        told, others = self._config.poller, len(self._credentials) > 1
        resources = resources_of(Source(twilio, await discover(twilio, told), intake, self._config))
        polled = [resources[name] for name in resources if name in told.resources]
        poll = Poll(twilio, polled, Cursors(self._broker), told, self._metrics)
        past = Backfills(self._broker, twilio, {**resources, VERIFY: resources["tasks"]}, last=not others)
        backfills = asyncio.create_task(past.forever())
        try:
            while True:
                try:
                    await poll.forever(self._polled)
                except _AWAY as error:
                    if others and isinstance(error, TwilioError) and isinstance(error.verdict, Pause):
                        raise
                    self._note(error)
                await asyncio.sleep(self._again_s)
        finally:
            await cancel([backfills])

    def _polled(self, refused: str) -> None:
        self.stuck, self.behind = "", refused
        self.last_ms = time.time_ns() // 1_000_000

    def _note(self, error: Exception) -> None:
        self.behind = str(error) or type(error).__name__
        self.stuck = (
            self.behind if isinstance(error, TwilioError) and isinstance(error.verdict, Pause) else ""
        )
        log.warning("not_polled", why=self.behind)


def resources_of(source: Source) -> dict[str, Resource]:
    """Everything that can be read, by name; `tasks` first."""
    resources: list[Resource] = [kind(source) for kind in (Tasks, Conversations, Messages, Statistics)]
    resources += [Snapshots(name, source) for name in LISTS]
    return {resource.name: resource for resource in resources}
