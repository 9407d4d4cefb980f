"""From raw events to published commands, one batch at a time: the mapper's shell.

The order, and why a crash repeats and never loses:
  1. one transaction: what was heard, and what follows from it, into book and outbox;
  2. publish the outbox, oldest first;
  3. ack the raw events;
  4. forget the outbox (in the next transaction).
A crash before 1 is over changes nothing: the events come again.  After 1, the outbox is published at the next
start, before anything is heard; what was published already is dropped by its Nats-Msg-Id, and by the sink's
ledger when that is too old.  Events that come again after 1 change nothing, because every fold is idempotent.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry, Counter, Gauge

from mapper.book import Book
from mapper.heard import Heard, UnreadableError, read
from mapper.step import Policy
from mapper.take import Made, look, retell, take
from shared import command, dead, receipt
from shared.bus import ATOMIC_MAX, NotPublishedError, Publisher
from shared.event import epoch_ms, from_message
from shared.message import Message
from shared.receipt import Receipt
from shared.trace import follow

LOOK_S = 0.5  # how often what waits is looked at again
NONE_YET = -(2**62)
PAST_MS = (
    3600 * 1000
)  # what happened longer ago is history that is read, or read again, and may wait at Brevo
RETRY_S = 0.5  # between tries to publish while the broker is away

log = structlog.get_logger()


class Mapping:
    """Holds the book; hears one batch at a time."""

    def __init__(
        self,
        book: Book,
        publisher: Publisher,
        policy: Policy,
        registry: CollectorRegistry,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._book = book
        self._publisher = publisher
        self._policy = policy
        self._now = now
        self._turn = asyncio.Lock()  # a batch or a look, never both
        self._published = NONE_YET  # number in the outbox
        self.stuck = ""  # why nothing can be published just now
        self._heard = Counter(
            "tajo_mapper_raw_events",
            "Raw events folded, by what was read in them",
            ["read"],
            registry=registry,
        )
        self._commands = Counter(
            "tajo_mapper_commands", "Commands made, by kind", ["kind"], registry=registry
        )
        self._nobody = Counter("tajo_mapper_no_identity", "Events given up: nobody came", registry=registry)
        self._sequence = Gauge(
            "tajo_mapper_sequence", "The last TWILIO sequence in the book", registry=registry
        )

    async def on_batch(self, messages: list[Msg]) -> None:
        """Fold, say, ack."""
        async with self._turn:
            self._fold(messages)
            await self._say()
            for message in messages:
                await message.ack()

    async def on_time(self) -> None:
        """Let go, twice a second, what has waited long enough.  Ends when cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            async with self._turn:
                self._look()
                await self._say()

    @property
    def sequence(self) -> int:
        """The last TWILIO sequence in the book."""
        return self._book.sequence

    def alone(self) -> asyncio.Lock:
        """Held by who changes the book outside of hearing."""
        return self._turn

    def refold(self, messages: Sequence[Msg]) -> None:
        """Fold again what was acked long ago: events go to the outbox, and nothing is published."""
        events, _ = self._read(messages)
        heard_ms = round(messages[-1].metadata.timestamp.timestamp() * 1000)
        sequence = messages[-1].metadata.sequence.stream
        with self._book:
            made = take(self._book, events, self._policy, now_ms=heard_ms, sequence=sequence, contacts=False)
            self._book.put_out(self._said(made, past=True))
            self._book.retelling = True
        self._sequence.set(sequence)

    async def retell(self) -> None:
        """Put the contacts that `refold` left out ahead of everything in the outbox."""
        self._book.published(self._published)
        self._published = NONE_YET
        after = ""
        while self._book.retelling:
            with self._book:
                made, after = retell(self._book, self._policy, after=after)
                self._book.put_out(
                    (command.to_message(one, follow(None), past=True) for one in made), first=True
                )
                self._book.retelling = bool(after)
            await asyncio.sleep(0)  # health is asked meanwhile

    async def catch_up(self) -> None:
        """Publish what a crash left in the outbox, before anything is heard."""
        async with self._turn:
            await self._say()

    def _read(self, messages: Sequence[Msg]) -> tuple[list[tuple[Heard, str]], list[Message]]:
        """What was heard, each with its trace, and dead letters."""
        events: list[tuple[Heard, str]] = []
        letters: list[Message] = []
        for message in messages:
            headers = message.headers or {}
            try:
                heard = read(from_message(message.subject, headers, message.data), self._policy.reading)
            except (UnreadableError, ValueError) as error:
                letters.append(_letter(message, str(error)))
                self._heard.labels("unreadable").inc()
                continue
            if heard is not None and heard.links:
                events.append((heard, headers.get("traceparent", "")))
            self._heard.labels("customer" if heard else "other").inc()
        return events, letters

    def _fold(self, messages: Sequence[Msg]) -> None:
        events, letters = self._read(messages)
        sequence = messages[-1].metadata.sequence.stream
        with self._book:
            now_ms = self._now_ms()
            past = bool(events) and all(heard.time_ms < now_ms - PAST_MS for heard, _ in events)
            made = take(self._book, events, self._policy, now_ms=now_ms, sequence=sequence)
            self._put_out(made, letters, past=past)
        self._sequence.set(sequence)

    def _look(self) -> None:
        if self._book.is_due(self._now_ms()):
            with self._book:
                self._put_out(look(self._book, self._policy, now_ms=self._now_ms()), [])

    def _said(self, made: Made, *, past: bool) -> list[Message]:
        """The commands as messages; those of the past may wait for those of now."""
        now_ms = self._now_ms()
        return [
            command.to_message(one, follow(trace), past=is_past(one, now_ms=now_ms, heard_past=past))
            for one, trace in made.commands
        ]

    def _put_out(self, made: Made, letters: list[Message], *, past: bool = False) -> None:
        self._book.published(self._published)
        out = self._said(made, past=past)
        self._book.put_out([*out, *letters, *(_given_up(id_) for id_ in made.nobody)])
        for one, _ in made.commands:
            self._commands.labels(command.kind(one)).inc()
        self._nobody.inc(len(made.nobody))

    async def _say(self) -> None:
        """Publish the outbox, however long that takes: nothing is heard meanwhile."""
        while True:
            last, messages = self._book.outbox(self._published, ATOMIC_MAX)
            if not messages:
                return
            try:
                await self._publisher.publish(messages)
            except NotPublishedError as error:
                if not self.stuck:
                    log.warning("outbox_waits", reason=str(error))
                self.stuck = str(error)
                await asyncio.sleep(RETRY_S)
                continue
            self.stuck, self._published = "", last
            if len(messages) == ATOMIC_MAX:  # there may be more: make room for the next look at the oldest
                self._book.published(last)

    def _now_ms(self) -> int:
        return round(self._now() * 1000)


def is_past(one: command.Command, *, now_ms: int, heard_past: bool) -> bool:
    """Whether a command may wait for those of what happens now: an event by its own time, else what was heard."""
    match one:
        case command.EventTrack():
            return epoch_ms(one.time) < now_ms - PAST_MS
        case command.ContactUpsert():
            return heard_past
        case _:  # what is done to a contact alone keeps its place before what is said after it
            return False


def _letter(message: Msg, why: str) -> Message:
    sequence = message.metadata.sequence.stream
    return dead.to_message(
        who="mapper",
        why=why,
        where=f"TWILIO:{sequence}:{message.subject}",
        msg_id=f"TWILIO/{sequence}",
        body=message.data,
        headers=message.headers or {},
        tries=message.metadata.num_delivered,
    )


def _given_up(id_: str) -> Message:
    given_up = Receipt(
        outcome="no_identity", kind="event.track", ids=(id_,), why="no identity came within 30 days"
    )
    return receipt.to_message(given_up, f"no_identity/{id_}", follow(None))
