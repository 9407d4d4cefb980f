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
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg

from mapper.book import Book
from mapper.heard import Heard, UnreadableError, forget_texts
from mapper.made import PAST_MS, Made
from mapper.metrics import Metrics
from mapper.readout import ForgottenError, Readout, heard_in, stored_ms
from mapper.step import Policy
from mapper.take import look, take
from shared import command, dead, receipt, span, spans
from shared.bus import Publisher
from shared.config import Config
from shared.message import Message
from shared.publish import ATOMIC_MAX, NotPublishedError
from shared.receipt import Receipt
from shared.tombstone import Tombstones
from shared.topology import BREVO, MAPPER
from shared.trace import follow

BRING_S = 0.05  # between two bits of a backlog: what happens now has its turn
LOOK_S = 0.5  # how often what waits is looked at again
NONE_YET = -(2**62)
RETRY_S = 0.5  # between tries to publish while the broker is away

log = structlog.get_logger()


async def _nothing(_sequences: Sequence[int]) -> None:
    """Nobody was forgotten."""


class Mapping:
    """Holds the book; hears one batch at a time."""

    def __init__(
        self,
        book: Book,
        publisher: Publisher,
        policy: Policy,
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.time,
        erase: Callable[[Sequence[int]], Awaitable[None]] = _nothing,
    ) -> None:
        """`erase` overwrites messages of TWILIO: what came of somebody who was forgotten.  It raises nats' errors."""
        self._erase = erase
        self.tombstones = Tombstones()  # of whom nothing of before is heard
        self._unwanted: list[int] = []  # sequences of what came of them all the same
        self._book = book
        self._publisher = publisher
        self._policy = policy
        self._now = now
        self._turn = asyncio.Lock()  # a batch or a look, never both
        self._published = NONE_YET  # number in the outbox
        self.stuck = ""  # why nothing can be published just now
        self._watched: list[command.Command] | None = None
        self._brought = asyncio.Event()  # nothing of the backlog is to be published
        book.note_mapping(policy.config)
        self._metrics = metrics

    async def on_batch(self, messages: list[Msg]) -> None:
        """Fold, say, ack."""
        async with self._turn:
            with (
                self._metrics.batch_seconds.time(),
                spans.Batch(
                    span.MAPPER, stream=MAPPER.stream, durable=MAPPER.durable, count=len(messages)
                ) as batch,
            ):
                self._fold(messages, batch)
                await self._say()
                await self._erase_unwanted()  # before the ack, after which nobody would look at them again
                for message in messages:
                    await message.ack()

    async def on_time(self) -> None:
        """Let go, twice a second, what has waited long enough.  Ends when cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            async with self._turn:
                self._look()
                await self._say()

    async def bring_on(self) -> None:
        """Bring the backlog on, bit by bit, between batches.  Ends when cancelled."""
        while True:
            if not self._book.backlog:
                self._brought.set()
                await asyncio.sleep(LOOK_S)
                continue
            async with self._turn:
                with self._book:
                    self._book.published(self._published)
                    self._book.backlog.bring_on()
                await self._say()
            await asyncio.sleep(BRING_S)

    async def all_brought(self) -> None:
        """Return once the backlog is published."""
        self._brought.clear()
        await self._brought.wait()

    def watch(self) -> None:
        """From here on `watched` tells which commands were made; from anew."""
        self._watched = []

    @property
    def watched(self) -> list[command.Command]:
        """The commands made since `watch`."""
        return self._watched or []

    def unwatch(self) -> None:
        """Nobody wants to know any more."""
        self._watched = None

    def swap(self, book: Book, policy: Policy) -> None:
        """From here on that is the book in force, and that the mapping.  For who holds the turn; nothing waits in the outbox."""
        self._book.close()
        self._book, self._policy, self._published = book, policy, NONE_YET
        book.note_mapping(policy.config)

    def close(self) -> None:
        """Close the book."""
        self._book.close()

    @property
    def book(self) -> Book:
        """The book in force."""
        return self._book

    @property
    def policy(self) -> Policy:
        """What decides, in force."""
        return self._policy

    @property
    def config(self) -> Config:
        """The mapping in force."""
        return self._policy.config

    @property
    def sequence(self) -> int:
        """The last TWILIO sequence in the book."""
        return self._book.sequence

    def alone(self) -> asyncio.Lock:
        """Held by who changes the book outside of hearing."""
        return self._turn

    async def heard_again(self, batch: Readout) -> None:
        """Count what is about to be folded again, and erase what came of somebody who was forgotten: it is not read twice."""
        self._unwanted += batch.forgotten
        self._metrics.forgotten.inc(len(batch.forgotten))
        self._count(batch.customers, batch.others, batch.unreadable)
        self._metrics.sequence.set(batch.sequence)
        await self._erase_unwanted()

    def forget(self, take_out: Callable[[], Made], commands: Sequence[command.Command]) -> None:
        """Take somebody out of the book, and say these commands before what follows: one transaction.

        With `alone` held.  What is published must not stay in the outbox.
        """
        with self._book:
            self._book.published(self._published)
            made = take_out()
            self._book.put_out(command.to_message(one, follow(None)) for one in commands)
            self._put_out(made, [])
        forget_texts()

    async def say_all(self) -> None:
        """Publish the outbox, and leave nothing of it behind.  With `alone` held."""
        await self._say()
        with self._book:
            self._book.published(self._published)

    async def catch_up(self) -> None:
        """Publish what a crash left in the outbox, before anything is heard."""
        async with self._turn:
            await self._say()

    async def _erase_unwanted(self) -> None:
        """However long the broker is away."""
        while self._unwanted:
            try:
                await self._erase(self._unwanted)
                self._unwanted = []
            except (NotPublishedError, nats.errors.Error, nats.js.errors.Error, OSError) as error:
                log.warning("forgotten_waits", error=type(error).__name__)
                await asyncio.sleep(RETRY_S)

    def _read(
        self, messages: Sequence[Msg], batch: spans.Batch
    ) -> tuple[list[tuple[Heard, str]], list[Message]]:
        """What was heard, each with its trace, and dead letters."""
        events: list[tuple[Heard, str]] = []
        letters: list[Message] = []
        customers = forgotten = 0
        for message in messages:
            headers = message.headers or {}
            try:
                heard = heard_in(message, self._policy.reading, self.tombstones)
            except ForgottenError:
                forgotten += 1
                self._unwanted.append(message.metadata.sequence.stream)
                continue
            except (UnreadableError, ValueError) as error:
                letters.append(_letter(message, str(error)))
                batch.fail(headers, "unreadable")
                continue
            cause = batch.follow(headers, heard.task if heard else "")
            if heard is not None and heard.links:
                events.append((heard, cause))
            customers += heard is not None
        self._metrics.forgotten.inc(forgotten)
        self._count(customers, len(messages) - customers - len(letters) - forgotten, len(letters))
        return events, letters

    def _count(self, customers: int, others: int, unreadable: int) -> None:
        for kind, count in (("customer", customers), ("other", others), ("unreadable", unreadable)):
            if count:
                self._metrics.heard.labels(kind).inc(count)

    def _fold(self, messages: Sequence[Msg], batch: spans.Batch) -> None:
        events, letters = self._read(messages, batch)
        sequence = messages[-1].metadata.sequence.stream
        with self._book:
            now_ms = self._now_ms()
            past = bool(events) and all(heard.time_ms < now_ms - PAST_MS for heard, _ in events)
            made = take(self._book, events, self._policy, now_ms=now_ms, sequence=sequence)
            self._put_out(made, letters, past=past, stored_ms=stored_ms(messages[0]))
        self._metrics.sequence.set(sequence)

    def _look(self) -> None:
        if self._book.is_due(self._now_ms()):
            with self._book:
                self._put_out(look(self._book, self._policy, now_ms=self._now_ms()), [])

    def _put_out(self, made: Made, letters: list[Message], *, past: bool = False, stored_ms: int = 0) -> None:
        self._book.published(self._published)
        self._book.backlog.hurry(one.ext_id for one, _ in made.commands)
        if self._watched is not None:
            self._watched += [one for one, _ in made.commands]
        out = made.messages(now_ms=self._now_ms(), heard_past=past, stored_ms=stored_ms)
        self._book.put_out([*out, *letters, *(_given_up(id_) for id_ in made.nobody)])
        for kind, count in Counter(command.kind(one) for one, _ in made.commands).items():
            self._metrics.commands.labels(kind).inc(count)
        self._metrics.nobody.inc(len(made.nobody))

    async def _say(self) -> None:
        """Publish the outbox, however long that takes: nothing is heard meanwhile."""
        while True:
            last, messages = self._book.outbox(self._published, ATOMIC_MAX)
            if not messages:
                return
            began_ns = time.time_ns()
            try:
                await self._publisher.publish(messages)
            except NotPublishedError as error:
                if not self.stuck:
                    log.warning("outbox_waits", reason=str(error))
                self.stuck = str(error)
                await asyncio.sleep(RETRY_S)
                continue
            self.stuck, self._published = "", last
            spans.published(BREVO.name, messages, began_ns, _about)
            if len(messages) == ATOMIC_MAX:  # there may be more: make room for the next look at the oldest
                self._book.published(last)

    def _now_ms(self) -> int:
        return round(self._now() * 1000)


def _about(message: Message) -> span.Attributes:
    match command.from_body(message.body):
        case command.EventTrack(id=id_, properties=properties):
            return {**span.command(id_), **span.task(str(properties.get("task_sid", "")))}
        case one:
            return span.command(one.id)


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
