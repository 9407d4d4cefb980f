"""Delivering: from commands heard to commands ended.  The order of what is written stands in events.py and ends.py."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress

import nats.errors
import structlog
from nats.aio.msg import Msg

from brevo_sink import papers, request
from brevo_sink.alone import Alone
from brevo_sink.brevo import EVENT_CALLS, UPSERT_CALLS, Brevo
from brevo_sink.contacts import Conflicts, Contacts
from brevo_sink.desk import Desk, Item, version
from brevo_sink.doubt import Doubts
from brevo_sink.ends import RETRY_MAX_S, Ends
from brevo_sink.events import Events
from brevo_sink.gate import Gate
from brevo_sink.imports import Imports
from brevo_sink.ledger import Ledger
from brevo_sink.metrics import Metrics
from shared import span, spans
from shared.bus import Publisher
from shared.command import ContactDelete, ContactRelink, ContactUpsert, EventTrack
from shared.service import STOP_GRACE_S
from shared.tombstone import Tombstones
from shared.topology import BREVO_SINK

ALIVE_S = BREVO_SINK.ack_wait_s / 4  # how often JetStream hears that we still have what we have
CONTACT_S = 60.0  # an event waits for its contact's upsert, which was said before it: ack_wait and room
TRIES_MAX = 8  # of what makes our own code raise
LOOK_S, LOOK_IDLE_S = 0.25, 2.0  # between looks at what is in hand, without news; and while nothing is
IMPORT_LOOK_S = 1.0  # between looks whether enough contacts wait for an import

log = structlog.get_logger()


class Delivery:
    """Everything in hand, and the two pumps that carry it to Brevo."""

    def __init__(
        self,
        *,
        brevo: Brevo,
        ledger: Ledger,
        publisher: Publisher,
        gate: Gate,
        metrics: Metrics,
        look_s: float,
        conflicts: Conflicts = "drop_identifier",
        import_from: int = 0,
        import_new: bool = False,
        unheard: Callable[[], Awaitable[bool]],
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may` says whether we may act just now: a lease's `held`; `unheard`, whether commands of the past wait in BREVO."""
        self.forgotten = Tombstones()  # of whom nothing said up to a position of BREVO is told any more
        self._unheard = unheard
        self._may = may
        self._brevo = brevo
        self._ledger = ledger
        self._gate = gate
        self._metrics = metrics
        self._desk = Desk(ledger.has)
        self._ends = Ends(
            desk=self._desk,
            ledger=ledger,
            publisher=publisher,
            gate=gate,
            metrics=metrics,
        )
        self._doubts = Doubts(brevo, gate, look_s=look_s)
        self._alone = Alone(brevo=brevo, ledger=ledger, desk=self._desk, ends=self._ends, gate=gate)
        self._imports = Imports(
            brevo=brevo,
            ledger=ledger,
            desk=self._desk,
            ends=self._ends,
            gate=gate,
            least=import_from,
            new=import_new,
            look_s=look_s,
        )
        self._contacts = Contacts(
            brevo=brevo, ledger=ledger, desk=self._desk, ends=self._ends, conflicts=conflicts
        )
        self._events = Events(
            brevo=brevo,
            ledger=ledger,
            desk=self._desk,
            ends=self._ends,
            gate=gate,
            doubts=self._doubts,
            metrics=metrics,
            current=self.current,
        )
        self._calls: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._open_upserts = asyncio.Semaphore(UPSERT_CALLS)
        self._open_events = asyncio.Semaphore(EVENT_CALLS)

    @property
    def in_hand(self) -> tuple[int, int]:
        """Commands not yet ended, and of these the events nobody knows about."""
        return len(self._ends.held), len(self._doubts)

    def note(self) -> str:
        """What a person should know of a sink that works; an empty text when all is well."""
        return "; ".join(filter(None, (self._events.note, self._alone.note)))

    # -- hearing ------------------------------------------------------------------------------------------------

    async def on_batch(self, messages: list[Msg]) -> None:
        """Put commands on the desk; settle at once what has ended already."""
        items, letters = papers.read(messages)
        for message, letter in letters:
            await self._ends.say([letter])
            await message.ack()
        once = [item.command.id for item in items if not isinstance(item.command, ContactUpsert)]
        states = self._ledger.states(once)
        superseded: list[Item] = []
        repeated: list[Item] = []
        doubtful: list[Item] = []
        dropped: list[Item] = []  # without a word: a receipt would name who was forgotten
        with self._ledger.reading():
            for item in items:
                held = self._ends.held.get(item.command.id)
                if held is not None:  # delivered again while we have it: only the way to settle it is new
                    held.message = item.message
                elif self.forgotten and papers.is_forgotten(item, self.forgotten):
                    dropped.append(item)
                elif isinstance(item.command, ContactUpsert):
                    superseded += self._upsert_heard(item)
                elif isinstance(item.command, ContactRelink | ContactDelete) and (
                    states.get(item.command.id) != "delivered"  # one refused before is said again by a person
                ):
                    self._alone.hold(item)
                elif isinstance(item.command, ContactRelink | ContactDelete):
                    self._alone.heard(item.command.id)
                    repeated.append(item)
                elif states.get(item.command.id) in ("delivered", "unresolved"):
                    repeated.append(item)
                elif (whom := self._whom(item))[1]:
                    superseded.append(item)  # its customer is forgotten
                elif states.get(item.command.id) in ("sending", "in_doubt"):
                    self._ends.held[item.command.id] = item
                    doubtful.append(item)
                else:
                    item.now_called = whom[0]
                    self._hold(item)
        for kind in (ContactUpsert, EventTrack):
            await self._ends.end([one for one in superseded if isinstance(one.command, kind)], "superseded")
        await self._ends.repeat([one for one in repeated if states[one.command.id] == "delivered"])
        await self._ends.ack([*repeated, *dropped])
        self._metrics.commands.labels("event.track", "repeated").inc(len(repeated))
        await self._events.in_doubt(doubtful)
        self._news.set()
        await self._gate.passed()  # what is in hand is kept alive; no more is heard while we are paused

    def _upsert_heard(self, item: Item) -> list[Item]:
        """Hold an upsert; returns what has thereby ended."""
        assert isinstance(item.command, ContactUpsert)  # noqa: S101 - the caller looked
        name, gone = self._whom(item)
        if gone or name != item.command.ext_id:  # forgotten; or told under its new name
            return [item]
        known = self._ledger.delivered(item.command.ext_id)
        if known:
            same = known[2] == item.command.mapping  # else who was heard later has the newer mapping
            if known[:2] >= version(item) if same else known[1] > item.position:
                return [item]
        older = self._hold(item)
        return [older] if older else []

    def holds(self, forgotten: Tombstones) -> bool:
        """Whether anything is in hand that was said of these."""
        return any(papers.is_forgotten(item, forgotten) for item in self._ends.held.values())

    def current(self, item: Item) -> str:
        """What the contact is called that a command is about; a name that changed may have come back."""
        return self._whom(item)[0]

    def _whom(self, item: Item) -> tuple[str, bool]:
        """That, and whether it is forgotten."""
        name = item.command.ext_id
        given = self._alone.given_at(name) <= item.position
        return (name, False) if given else self._ledger.whom(name, item.position)

    def _hold(self, item: Item) -> Item | None:
        self._ends.held[item.command.id] = item
        return self._desk.add(item)

    async def keep_alive(self) -> None:
        """Tell JetStream that we still have what we have.  Runs until cancelled."""
        while True:
            await asyncio.sleep(ALIVE_S)
            for item in list(self._ends.held.values()):
                try:
                    await item.message.in_progress()
                except (nats.errors.Error, OSError):  # what we hold comes again, and is known
                    break
            in_hand, in_doubt = self.in_hand
            self._metrics.in_hand.set(in_hand)
            self._metrics.in_doubt.set(in_doubt)

    # -- pumps --------------------------------------------------------------------------------------------------

    async def pump_upserts(self) -> None:
        """Carry contacts to Brevo, the longest waiting first.  Runs until cancelled."""
        while True:
            await self._ready(self._desk.upsert_ready)
            await self._open_upserts.acquire()
            # Newer versions may come while we wait: so first wait, then take.
            await self._brevo.turn("contacts")
            item = self._desk.take_upsert(time.monotonic())
            if item is None:
                self._brevo.no_turn("contacts")
                self._open_upserts.release()
            else:
                self._start(
                    self._guarded(_sending(self._contacts.tell(item), [item]), [item]), self._open_upserts
                )

    async def pump_imports(self) -> None:
        """Carry many contacts of the past to Brevo at once, one import after the other.  Runs until cancelled."""
        while True:
            await asyncio.sleep(IMPORT_LOOK_S)
            await self._gate.passed()
            if items := self._imports.take(time.monotonic()):
                await self._guarded(_sending(self._imports.run(items), items), items)

    async def pump_events(self) -> None:
        """Carry events to Brevo: what there is at once, in full batches when there is much.  Runs until cancelled."""
        while True:
            await self._ready(lambda now: self._desk.events_ready(now, request.BATCH_MAX))
            await self._open_events.acquire()
            await self._brevo.turn("events")
            items = self._desk.take_events(time.monotonic(), request.BATCH_MAX)
            if not items:
                self._brevo.no_turn("events")
                self._open_events.release()
            else:
                self._start(self._guarded(self._events.send(items), items), self._open_events)

    async def pump_alone(self) -> None:
        """Rename and delete contacts, each in the order that was said.  Runs until cancelled."""
        while True:
            await self._gate.passed()
            item = self._alone.next()
            if item is None:
                await self._any_news()
            else:
                await asyncio.wait(
                    [self._begin(self._guarded(self._alone.settle(item, self._any_news), [item]))]
                )

    def expect(self, coming: Iterable[tuple[int, ContactRelink | ContactDelete]]) -> None:
        """What a killed sink had in hand of these comes again; before that nothing of their contacts is done."""
        coming = list(coming)
        states = self._ledger.states([command.id for _, command in coming])
        self._alone.expect(one for one in coming if states.get(one[1].id) != "delivered")

    async def watch_stranded(self) -> None:
        """Give up events of contacts nobody told of, or that Brevo refused before.  Runs until cancelled."""
        while True:
            await asyncio.sleep(CONTACT_S / 4)
            await self._gate.passed()
            if await self._unheard():  # the contact may be among them
                continue
            items = self._desk.stranded(time.monotonic() - CONTACT_S)
            why = "Brevo has no such contact: it was refused, or never told"
            await self._ends.reject(items, [why] * len(items))

    async def watch_doubts(self) -> None:
        """Read uncertain events back.  Runs until cancelled."""
        while True:
            found, absent = await self._doubts.look()
            self._metrics.read_back.labels("arrived").inc(len(found))
            self._metrics.read_back.labels("absent").inc(len(absent))
            self._ledger.write([item.command.id for item in found], "delivered")
            await self._ends.end(found, "delivered")
            self._ledger.forget(item.command.id for item in absent)
            gone = [item for item in absent if self._whom(item)[1]]  # deleted while it was looked for
            await self._ends.end(gone, "superseded")
            for item in (item for item in absent if item not in gone):
                item.tries += 1  # another try is another batch, with receipts of its own
                item.now_called = self.current(item)
                self._desk.add(item)
            self._news.set()

    async def finish(self) -> None:
        """Let the calls in flight end and be recorded, and give the rest back; the pumps are cancelled before.

        Where another works already, nothing is said any more: what is in flight is in doubt for both.
        """
        self._gate.release()
        if not self._may():
            for call in self._calls:
                call.cancel()
            return
        if self._calls:
            await asyncio.wait(self._calls, timeout=STOP_GRACE_S)
        for item in self._ends.held.values():
            with suppress(nats.errors.Error, OSError):  # without a broker it comes again after ack_wait
                await item.message.nak()

    async def _ready(self, ready: Callable[[float], bool]) -> None:
        """Return when the gate is open and the desk has what may go."""
        while True:
            await self._gate.passed()
            if ready(time.monotonic()):
                return
            await self._any_news()

    async def _any_news(self) -> None:
        """Or what becomes so by time alone: what was put off, and that no more is expected to come again."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S if self._ends.held else LOOK_IDLE_S):
                await self._news.wait()

    def _start(self, work: Coroutine[None, None, None], door: asyncio.Semaphore) -> None:
        self._begin(work).add_done_callback(lambda _: door.release())

    async def _guarded(self, work: Coroutine[None, None, None], items: Sequence[Item]) -> None:
        """Whatever goes wrong in our own code: the items come again, and after TRIES_MAX are dead letters."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a bug must not hold a contact for ever
            tries = max(item.message.metadata.num_delivered for item in items)
            log.error("call_failed", items=len(items), error=type(error).__name__, tries=tries)
            await asyncio.sleep(min(2.0**tries, RETRY_MAX_S))
            names = {item.ext_id for item in items}
            held = [item for item in items if item.command.id in self._ends.held]
            if tries >= TRIES_MAX:
                await self._ends.reject(held, [f"{type(error).__name__} in brevo-sink"] * len(held))
            else:
                await self._again(held)
            self._desk.done(names)

    async def _again(self, items: Sequence[Item]) -> None:
        """Hear them once more: the ledger says which of them are in doubt."""
        for item in items:
            del self._ends.held[item.command.id]
            with suppress(nats.errors.Error, OSError):
                await item.message.nak()

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._calls.add(task)

        def over(_: asyncio.Task[None]) -> None:
            self._calls.discard(task)
            self._news.set()

        task.add_done_callback(over)
        return task


async def _sending(work: Awaitable[None], items: Sequence[Item]) -> None:
    """The same, told as a span; a batch of events has one for each call (events.py)."""
    with spans.work(span.SINK, "consumer", papers.causes(items), papers.heard(items)):
        await work
