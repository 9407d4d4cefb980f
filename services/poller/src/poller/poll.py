"""Polling: what webhooks missed is in the log within one interval.

A window begins `overlap_s` before the cursor, because Twilio promises no order and an event may show up late.  When a
window is read, its cursor moves (intake.py says in which order).
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

import structlog

from poller.cursors import Cursors
from poller.metrics import Metrics
from poller.resource import Resource, Span, window_end_ms
from poller.twilio import Twilio, TwilioError
from shared import span, spans
from shared.config import Poller
from shared.event import rfc3339

AHEAD_MS = 60_000  # a cursor so far in the future is none

log = structlog.get_logger()


class Poll:
    """Reads what is new, again and again."""

    def __init__(
        self, twilio: Twilio, resources: Sequence[Resource], cursors: Cursors, told: Poller, metrics: Metrics
    ) -> None:
        self._twilio = twilio
        self._resources = resources
        self._cursors = cursors
        self._told = told
        self._metrics = metrics

    async def forever(self, on_poll: Callable[[str], None]) -> None:
        """Poll each interval, and say after each what could not be read, if anything.

        What cannot be read is no reason to leave out the rest, but for the first resource.
        Raises TwilioError, NotPublishedError and nats' errors.
        """
        refused: dict[str, str] = {}
        for poll in itertools.count():
            began = time.monotonic()
            for resource in self._resources:
                if poll % resource.every == 0:
                    try:
                        await self._once(resource)
                        refused.pop(resource.name, None)
                    except TwilioError as error:
                        if resource is self._resources[0]:
                            raise
                        refused[resource.name] = f"{resource.name}: {error}"
            on_poll("; ".join(refused.values()))
            await asyncio.sleep(max(began + self._told.interval_s - time.monotonic(), 0.0))

    async def _once(self, resource: Resource) -> None:
        """Read from the cursor to now."""
        now_ms = self._twilio.now_ms()
        at_ms = await self._cursors.get(resource.name)
        if at_ms is None:
            at_ms = now_ms - round(self._told.look_back_s * 1000)
            await self._cursors.move(resource.name, at_ms)  # with no look back, the next poll begins here
        oldest_ms = now_ms - resource.kept_ms if resource.kept_ms else 0
        if at_ms > now_ms + AHEAD_MS:  # Twilio's clock was wrong then, and nobody knows since when
            log.error("cursor_ahead", resource=resource.name, at=rfc3339(at_ms), now=rfc3339(now_ms))
            at_ms = oldest_ms or now_ms - round(self._told.look_back_s * 1000)
            await self._cursors.move(resource.name, at_ms, back=True)
        if at_ms < oldest_ms:
            if resource.window_ms:
                why = resource.gone.format(date=rfc3339(oldest_ms)[:10])
                log.error("too_late", resource=resource.name, since=rfc3339(at_ms), why=why)
            at_ms = oldest_ms
        while at_ms < now_ms:
            end_ms = window_end_ms(resource, at_ms, now_ms)
            with spans.work(span.POLLER, "internal", attributes=span.resource(resource.name)) as page:
                async for count in resource.read(Span(at_ms - round(self._told.overlap_s * 1000), end_ms)):
                    page.end(span.counted(count.read, count.missed))
            await self._cursors.move(resource.name, end_ms)
            self._metrics.cursor.labels(resource.name).set(end_ms / 1000)
            at_ms = end_ms
