"""Quarantine: wrongly signed requests, raw, for a day, in case the mistake was ours.  Never acted on by itself.

After a botched token rotation `tajo quarantine recheck` takes back what Twilio signed rightly.  Whoever sends
forged requests must not make it costly: it holds so many a second, in the background, and drops the rest.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec
import nats.js.errors
import structlog
from msgspec import Struct
from nats.js import JetStreamContext

from ingest.judge import Heard, Judge
from ingest.metrics import Metrics
from ingest.sources import digest
from shared.message import MSG_ID, Message
from shared.publish import NotPublishedError
from shared.topology import QUARANTINE
from shared.trace import start

PER_S = 50  # requests; a busy contact centre's callbacks
PER_S_BYTES = 512 * 1024
BODY_BYTES_MAX = 256 * 1024  # Twilio's are of 1 to 30 KB

RUN = 20  # wrong signatures without a right one between them
RUN_S = 60.0  # within this time
ALERT_S = 300.0  # between two alerts
WARN_S = 60.0  # between two lines of single refusals

SUBJECT = QUARANTINE.subjects[0]
REMEDY = (
    "is TWILIO_AUTH_TOKEN the primary token, and TAJO_PUBLIC_URL what Twilio calls? "
    "Once they are, `tajo quarantine recheck` takes back what was refused in the last 24 h"
)

Publish = Callable[[Sequence[Message]], Awaitable[None]]
log = structlog.get_logger()


class Run:
    """Wrong signatures since the last right one: a token changed, or somebody tries."""

    def __init__(self) -> None:
        self.length = 0
        self._times: list[float] = []  # of the last RUN of them
        self._alerted = float("-inf")

    def right(self) -> None:
        """Whoever signs knows the token: the run is over."""
        self.length = 0
        self._times.clear()

    def wrong(self, now: float) -> bool:
        """One more; whether to alert."""
        self.length += 1
        self._times = [*self._times[-RUN + 1 :], now]
        if len(self._times) < RUN or now - self._times[0] > RUN_S or now - self._alerted < ALERT_S:
            return False
        self._alerted = now
        return True


class Quarantine:
    """Takes what is offered as far as its limits go, and stores it beside the answers."""

    def __init__(self, publish: Publish, metrics: Metrics) -> None:
        self._publish = publish
        self._metrics = metrics
        self._run = Run()
        metrics.refused_run.set_function(lambda: self._run.length)
        self._warned = float("-inf")
        self._second = 0
        self._count = self._bytes = 0  # taken in this second
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(PER_S)

    def right(self) -> None:
        """A right signature was seen."""
        self._run.right()

    def wrong(self, heard: Heard, now: float) -> None:
        """A wrong one was seen; `now` is monotonic seconds.  Never waits, never raises."""
        if not self._takes(heard, now):
            self._metrics.quarantined.labels("dropped").inc()
        if self._run.wrong(now):
            self._warned = now
            log.error(
                "signatures_refused_in_a_row", route=heard.path, in_a_row=self._run.length, remedy=REMEDY
            )
        elif now - self._warned > WARN_S:
            self._warned = now
            log.warning("signature_refused", route=heard.path, in_a_row=self._run.length, remedy=REMEDY)

    def _takes(self, heard: Heard, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._count, self._bytes = int(now), 0, 0
        size = len(heard.body) + len(heard.query) + len(heard.signature)
        if (
            self._count == PER_S
            or self._bytes + size > PER_S_BYTES
            or size > BODY_BYTES_MAX
            or self._waiting.full()
        ):
            return False
        self._count += 1
        self._bytes += size
        self._waiting.put_nowait(to_message(heard))
        return True

    async def store(self) -> None:
        """Publish what waits.  Best effort: what the broker does not take is dropped.  Runs for ever."""
        while True:
            messages = [await self._waiting.get()]
            while not self._waiting.empty():
                messages.append(self._waiting.get_nowait())
            outcome = "stored"
            try:
                await self._publish(messages)
            except NotPublishedError:
                outcome = "dropped"
            self._metrics.quarantined.labels(outcome).inc(len(messages))


def to_message(heard: Heard) -> Message:
    """As it stands in QUARANTINE.  Twilio repeating itself stands there once."""
    said = (heard.path, heard.method, heard.query, heard.body, heard.signature)
    return Message(
        SUBJECT,
        msgspec.msgpack.encode(heard),
        {MSG_ID: digest(msgspec.msgpack.encode(said)), "content-type": "application/msgpack"},
    )


# -- afterwards: tajo quarantine -------------------------------------------------------------------------------


class Rechecked(Struct, frozen=True):
    """How many were there, and how many of them are in the log now."""

    seen: int
    recovered: int


async def held(stream: JetStreamContext) -> AsyncIterator[tuple[int, Heard]]:
    """What is in quarantine just now, oldest first, each with its sequence.  Raises nats' errors."""
    sequence, last = 0, (await stream.stream_info(QUARANTINE.name)).state.last_seq
    while sequence < last:
        try:
            message = await stream.get_msg(QUARANTINE.name, sequence + 1, subject=SUBJECT, next=True)
        except nats.js.errors.NotFoundError:
            return
        sequence = message.seq or last
        yield sequence, msgspec.msgpack.decode(message.data or b"", type=Heard)


async def recheck(stream: JetStreamContext, publish: Publish, judge: Judge) -> Rechecked:
    """Take back what is rightly signed after all, as the webhook would have; the rest stays.

    In this order: the log has it, then it is removed.  A crash in between is repeated with the same ids.
    Raises NotPublishedError and nats' errors; what was taken back until then is in the log.
    """
    seen = recovered = 0
    async for sequence, heard in held(stream):
        seen += 1
        if judge.is_signed(heard):
            _, messages = judge.keep(heard, start())
            await publish(messages)
            await stream.delete_msg(QUARANTINE.name, sequence)
            recovered += 1
    return Rechecked(seen, recovered)
