"""Polling TaskRouter's Events: what webhooks missed is in the log within one interval.

The order of effects for each window, and why a crash repeats and never loses:
  1. the index includes all the log holds; 2. a page is read, and what the index does not have is published;
  3. after the last page, the cursor moves to the window's end.
A crash before 3 reads the window again; by then the index has what was published.  A window begins `overlap_s` before
the cursor, because Twilio promises no order and an event may show up late.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog
from faststream.nats import NatsBroker

from poller import endpoints, items
from poller.account import Account
from poller.cursors import Cursors
from poller.heard import Heard
from poller.metrics import Metrics
from poller.twilio import Twilio
from shared import dead, trace
from shared.config import TwilioFlex
from shared.event import rfc3339, to_message
from shared.message import Message

CURSOR = "taskrouter.events"
WINDOW_MS = 3600 * 1000  # the cursor moves at least once for each hour that is read
KEPT_MS = 30 * 24 * 3600 * 1000  # https://www.twilio.com/docs/taskrouter/api/event

Publish = Callable[[Sequence[Message]], Awaitable[None]]

log = structlog.get_logger()


class Poll:
    """Reads what is new, again and again."""

    def __init__(
        self, broker: NatsBroker, twilio: Twilio, publish: Publish, heard: Heard, *, config: TwilioFlex, metrics: Metrics
    ) -> None:  # fmt: skip
        self._broker = broker
        self._twilio = twilio
        self._publish = publish
        self._heard = heard
        self._config = config
        self._metrics = metrics
        self._cursors = Cursors(broker)

    async def forever(self, account: Account, on_poll: Callable[[], None]) -> None:
        """Poll each interval.  Raises TwilioError, NotPublishedError and nats' errors."""
        while True:
            began = time.monotonic()
            await self.once(account)
            on_poll()
            await asyncio.sleep(max(began + self._config.poller.interval_s - time.monotonic(), 0.0))

    async def once(self, account: Account) -> None:
        """Read from the cursor to now."""
        now_ms = self._twilio.now_ms()
        at_ms = await self._cursors.get(CURSOR)
        if at_ms is None:
            at_ms = now_ms - round(self._config.poller.look_back_s * 1000)
        if at_ms < now_ms - KEPT_MS:
            log.error("twilio_has_forgotten", since=rfc3339(at_ms), until=rfc3339(now_ms - KEPT_MS))
            at_ms = now_ms - KEPT_MS
        while at_ms < now_ms:
            end_ms = min(at_ms + WINDOW_MS, now_ms)
            await self._window(account, at_ms - round(self._config.poller.overlap_s * 1000), end_ms)
            await self._cursors.move(CURSOR, end_ms)
            self._metrics.cursor.set(end_ms / 1000)
            at_ms = end_ms

    async def _window(self, account: Account, start_ms: int, end_ms: int) -> None:
        await self._heard.catch_up(self._broker)
        pages = self._twilio.pages(
            endpoints.EVENTS,
            WorkspaceSid=account.workspace_sid,
            StartDate=rfc3339(start_ms // 1000 * 1000),
            EndDate=rfc3339(end_ms + 1000),  # whole seconds; what is read beyond the cursor is read again
        )
        async for page in pages:
            read, unreadable = items.read_events(
                page.items, account_sid=account.account_sid, keep_bodies=self._config.message_bodies
            )
            missed = [item.event for item in read if not self._heard.has(item.ids)]
            await self._publish([
                *(to_message(event, trace.start()) for event in missed),
                *map(_letter, unreadable),
            ])  # fmt: skip
            self._metrics.read.inc(len(read))
            self._metrics.missed.inc(len(missed))
            self._metrics.unreadable.inc(len(unreadable))


def _letter(one: items.Unreadable) -> Message:
    return dead.to_message(
        who="poller", why=one.why, where=items.EVENTS, msg_id=one.id, body=one.body, headers={}
    )
