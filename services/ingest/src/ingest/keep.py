"""Where messages are kept: in the log, and while it cannot take them in the spool, which drains into the log.

While anything is in the spool, what is new goes behind it.  The log would bear another order, but an event is
told to Brevo with what is known by then, and in order more is known.  It also leaves one place, `drain`, to find
out whether the log is back, and no request waits for a broker that is away.  Draining outruns what comes in: it
carries 500 messages at once, and a request one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from ingest.metrics import Metrics
from ingest.spool import Group, Spool, SpoolError
from shared.message import Message
from shared.publish import NotPublishedError

FLIGHT_S = 1.5  # for the log to take a flight; two of them and the spool stay inside Twilio's 5 s
AGAIN_S = 0.25  # between two looks whether the log is back
REFUSED_S = 1.0  # nothing is published directly for so long after the log did not take something

Publish = Callable[[Sequence[Message]], Awaitable[None]]
Look = Callable[[], Awaitable[str]]
"""Why the log cannot take anything just now; an empty text when it can."""

log = structlog.get_logger()


class NotKeptError(Exception):
    """Neither the log nor the spool has them; the text says why."""


class Keep:
    """Holds the order of effects: the log or the spool has it, then the caller is told; the log has it, then the
    spool forgets it.  A crash in between repeats what the log's dedup and the book know already.
    """

    def __init__(self, publish: Publish, look: Look, spool: Spool, metrics: Metrics) -> None:
        self._publish = publish
        self._look = look
        self._spool = spool
        self._metrics = metrics
        self.forgets: Callable[[Message], bool] = lambda _: False  # of somebody who was forgotten
        self.refusal = ""  # why the log did not take what was published last; an empty text where it did
        self._refused = float("-inf")
        self._kept = asyncio.Event()
        metrics.spool_messages.set_function(lambda: spool.messages)
        metrics.spool_bytes.set_function(lambda: spool.bytes)

    async def put(self, messages: Sequence[Message]) -> None:
        """Return when all are on disk, but what is somebody's who was forgotten.  Raises NotKeptError."""
        messages = self._remembered(messages)
        if not messages:
            return
        why = "what is in the spool goes first"
        if not self._spool.messages:
            why = await self._try(messages)
            if not why:
                return
        try:
            await self._spool.append(messages)
        except SpoolError as error:
            # Full or broken: the log is the only way left, even ahead of what waits in the spool.
            if await self._try(messages):
                raise NotKeptError(str(error)) from error
            return
        if not self._kept.is_set():
            log.warning("spooling", why=why, meaning="nothing is lost: it is published when the log is back")
        self._metrics.spooled.inc(len(messages))
        self._kept.set()

    async def drain(self) -> None:
        """Publish what is in the spool, oldest first, whenever the log takes it.  Runs for ever."""
        if self._spool.messages:
            self._kept.set()
        while True:
            await self._kept.wait()
            try:
                group = await self._spool.oldest()
                if group is None:
                    self._kept.clear()
                    log.info("spool_drained")
                elif not await self._drained(group):
                    await asyncio.sleep(AGAIN_S)
            except SpoolError:  # said by the spool; the same messages are published again
                await asyncio.sleep(REFUSED_S)

    async def _drained(self, group: Group) -> bool:
        if await self._look():  # first, because what is published to a broker that hangs piles up
            return False
        try:
            await self._publish(self._remembered(group.messages))
        except NotPublishedError as error:
            self.refusal = str(error)
            return False
        self.refusal = ""
        await self._spool.forget(group)
        self._metrics.drained.inc(len(group.messages))
        return True

    def _remembered(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Without those of whom nothing of before is to come back."""
        kept = [message for message in messages if not self.forgets(message)]
        self._metrics.forgotten.inc(len(messages) - len(kept))
        return kept

    async def _try(self, messages: Sequence[Message]) -> str:
        """Publish; why not, where it did not work."""
        if time.monotonic() - self._refused < REFUSED_S:
            return "the log refused a moment ago"
        try:
            async with asyncio.timeout(FLIGHT_S):
                await self._publish(messages)
        except (NotPublishedError, TimeoutError) as error:
            self._refused = time.monotonic()
            self.refusal = str(error) or "the log is too slow"
            return self.refusal
        return ""
