"""Backfills: reading what of the past somebody asked for, beside polling, and saying how far that is.

The order of effects, and why a crash repeats and never loses:
  1. a window is read and stored (intake.py); 2. the backfill's position moves past it, in the bucket `backfills`.
A crash before 2 reads the window again.  Position and counts are one value, written by compare-and-swap: where somebody
else wrote (stopped it, asked for another), what they wrote counts, and we begin again from that.
"""

import asyncio
import time
from collections.abc import Mapping

import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.js.kv import KeyValue

from poller.resource import Resource, Span, window_end_ms
from poller.twilio import Twilio, TwilioError
from shared import backfill, bus, span, spans
from shared.backfill import Backfill
from shared.event import rfc3339
from shared.past import last_sequence
from shared.publish import NotPublishedError
from shared.service import cancel
from shared.topology import BACKFILLS
from shared.verdict import Pause, Reject

LOOK_S = 0.5  # between looks whether somebody asked for something
TELL_S = 1.0  # between two words on how far a window is
AGAIN_S = 5.0  # after what may work later
TIMEOUT_S = 2.0

_AWAY = (NotPublishedError, nats.errors.Error, nats.js.errors.Error, OSError)

log = structlog.get_logger()


class Backfills:
    """All of one account, a task a resource."""

    def __init__(
        self, broker: NatsBroker, twilio: Twilio, resources: Mapping[str, Resource], *, last: bool = True
    ) -> None:
        """`resources` by the key of their backfill; without `last`, other credentials are tried after these."""
        self._broker = broker
        self._twilio = twilio
        self._resources = resources
        self._last = last
        self._going: dict[str, asyncio.Task[None]] = {}
        self._revisions: dict[str, int] = {}  # of what is going
        self._writing = asyncio.Lock()  # between our write and knowing its revision nobody looks

    async def forever(self) -> None:
        """Do what is asked, until cancelled."""
        seen = -1
        try:
            while True:
                try:
                    last = await last_sequence(self._connection(), f"KV_{BACKFILLS.name}")
                    if last != seen:
                        await self._look()
                        seen = last
                except _AWAY as error:
                    log.debug("no_look_at_backfills", error=type(error).__name__)
                await asyncio.sleep(LOOK_S)
        finally:
            await cancel(list(self._going.values()))

    async def _look(self) -> None:
        """Begin what was asked for; end what somebody stopped or asked differently."""
        bucket = await self._bucket()
        for name, resource in self._resources.items():
            async with self._writing:
                revision, one = await backfill.read(bucket, name)
                if self._revisions.get(name) == revision:
                    continue
                await cancel([task for task in (self._going.pop(name, None),) if task])
                self._revisions[name] = revision
            if one and not one.ended:
                self._going[name] = asyncio.create_task(self._go(resource, one))

    async def _go(self, resource: Resource, one: Backfill) -> None:
        """Until it is done, failed, or somebody else says something."""
        one.state, one.why = "running", ""
        now_ms = self._twilio.now_ms()
        one.until_ms = min(one.until_ms, now_ms)  # whoever asked has another clock
        # What has no past is read once, as it is now, however long ago somebody asked.
        oldest_ms = (now_ms if resource.window_ms else one.until_ms) - resource.kept_ms
        if resource.kept_ms and one.at_ms < oldest_ms:
            one.gone = resource.gone.format(date=rfc3339(oldest_ms)[:10])
            one.at_ms = min(oldest_ms, one.until_ms)
        try:
            while not one.ended:
                try:
                    await self._try(resource, one)
                except nats.js.errors.KeyWrongLastSequenceError:
                    raise
                except Exception as error:  # noqa: BLE001 - a bug of ours must neither end polling nor be silent
                    one.state, one.why = "failed", f"{type(error).__name__} in the poller"
            log.info("backfill", resource=resource.name, state=one.state, why=one.why)
            await self._say_the_end(one)
        except nats.js.errors.KeyWrongLastSequenceError:
            return  # what somebody else wrote is seen at the next look

    async def _try(self, resource: Resource, one: Backfill) -> None:
        """As far as it goes; then it has ended, or may go on later.  Raises KeyWrongLastSequenceError."""
        try:
            await self._tell(one)
            while one.at_ms < one.until_ms:
                await self._window(resource, one)
            one.state = "done"
        except nats.js.errors.KeyWrongLastSequenceError:
            raise
        except TwilioError as error:
            one.why = str(error)
            if isinstance(error.verdict, Reject) or (isinstance(error.verdict, Pause) and self._last):
                one.state = "failed"
                return
            await asyncio.sleep(AGAIN_S)
        except _AWAY as error:
            one.why = f"{type(error).__name__} from NATS"
            await asyncio.sleep(AGAIN_S)

    async def _window(self, resource: Resource, one: Backfill) -> None:
        end_ms = window_end_ms(resource, one.at_ms, one.until_ms)
        days = Span(one.at_ms, end_ms, backfill=True, channels=frozenset(one.asked.channels))
        found, told_s = backfill.Count(), time.monotonic()
        with spans.work(
            span.POLLER, "internal", attributes=span.resource(resource.name, backfill=True)
        ) as page:
            async for count in resource.read(days):
                page.end(span.counted(count.read, count.missed))
                found.add(count)
                if time.monotonic() - told_s > TELL_S:
                    one.under_way, told_s = found.read, time.monotonic()
                    await self._tell(one)
        one.count.add(found)
        one.at_ms, one.under_way, one.why = end_ms, 0, ""
        await self._tell(one)

    async def _say_the_end(self, one: Backfill) -> None:
        """However long the broker is away.  Raises KeyWrongLastSequenceError."""
        while True:
            try:
                return await self._tell(one)
            except nats.js.errors.KeyWrongLastSequenceError:
                raise
            except _AWAY as error:
                log.debug("backfill_not_said", error=type(error).__name__)
            await asyncio.sleep(AGAIN_S)

    async def _tell(self, one: Backfill) -> None:
        name = one.asked.key
        async with self._writing:
            self._revisions[name] = await backfill.write(
                await self._bucket(), one, self._revisions.get(name, 0)
            )

    async def _bucket(self) -> KeyValue:
        return await self._connection().jetstream(timeout=TIMEOUT_S).key_value(BACKFILLS.name)

    def _connection(self) -> Client:
        return bus.connected(self._broker)
