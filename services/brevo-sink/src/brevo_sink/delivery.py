"""Delivering: the pumps that carry to Brevo what is on the desk.  The order of what is written stands in events.py and ends.py."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

import nats.errors

from brevo_sink import papers, request
from brevo_sink.alone import Alone
from brevo_sink.answer import Conflicts
from brevo_sink.brevo import EVENT_CALLS, UPSERT_CALLS, Brevo
from brevo_sink.calls import Calls
from brevo_sink.contacts import Contacts
from brevo_sink.desk import Desk, Item
from brevo_sink.doubt import Doubts
from brevo_sink.ends import Ends
from brevo_sink.events import Events
from brevo_sink.gate import Gate
from brevo_sink.hearing import Hearing
from brevo_sink.imports import Imports
from brevo_sink.ledger import Ledger
from brevo_sink.metrics import Metrics
from shared import span, spans
from shared.bus import Publisher
from shared.command import ContactDelete, ContactRelink

CONTACT_S = 60.0  # an event waits for its contact's upsert, which was said before it: ack_wait and room
IMPORT_LOOK_S = 1.0  # between looks whether enough contacts wait for an import


class Delivery:
    """Everything in hand, and the pumps that carry it to Brevo; `hearing` is how it came there."""

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
        self._unheard = unheard
        self._may = may
        self._brevo = brevo
        self._ledger = ledger
        self._gate = gate
        self._metrics = metrics
        self._desk = desk = Desk(ledger.has)
        self._ends = ends = Ends(desk=desk, ledger=ledger, publisher=publisher, gate=gate, metrics=metrics)
        self._calls = Calls(desk, ends)
        self._doubts = Doubts(brevo, gate, look_s=look_s)
        self._alone = Alone(brevo=brevo, ledger=ledger, desk=desk, ends=ends, gate=gate)
        self._imports = Imports(
            brevo=brevo,
            ledger=ledger,
            desk=desk,
            ends=ends,
            gate=gate,
            least=import_from,
            new=import_new,
            look_s=look_s,
        )
        self._contacts = Contacts(brevo=brevo, ledger=ledger, desk=desk, ends=ends, conflicts=conflicts)
        self._events = Events(
            brevo=brevo,
            ledger=ledger,
            desk=desk,
            ends=ends,
            gate=gate,
            doubts=self._doubts,
            alone=self._alone,
            metrics=metrics,
        )
        self.hearing = Hearing(
            ledger=ledger,
            desk=desk,
            ends=ends,
            alone=self._alone,
            events=self._events,
            gate=gate,
            metrics=metrics,
            news=self._calls.news,
        )
        metrics.in_hand.set_function(lambda: self.in_hand[0])
        metrics.in_doubt.set_function(lambda: self.in_hand[1])
        self._open_upserts = asyncio.Semaphore(UPSERT_CALLS)
        self._open_events = asyncio.Semaphore(EVENT_CALLS)

    @property
    def in_hand(self) -> tuple[int, int]:
        """Commands not yet ended, and of these the events nobody knows about."""
        return len(self._ends.held), len(self._doubts)

    def note(self) -> str:
        """What a person should know of a sink that works; an empty text when all is well."""
        return "; ".join(filter(None, (self._events.note, self._alone.note)))

    def expect(self, coming: Iterable[tuple[int, ContactRelink | ContactDelete]]) -> None:
        """What a killed sink had in hand of these comes again; before that nothing of their contacts is done."""
        coming = list(coming)
        states = self._ledger.states([command.id for _, command in coming])
        self._alone.expect(one for one in coming if states.get(one[1].id) != "delivered")

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
                call = self._calls.start(_sending(self._contacts.tell(item), [item]), [item])
                call.add_done_callback(lambda _: self._open_upserts.release())

    async def pump_imports(self) -> None:
        """Carry many contacts of the past to Brevo at once, one import after the other.  Runs until cancelled."""
        while True:
            await asyncio.sleep(IMPORT_LOOK_S)
            await self._gate.passed()
            if items := self._imports.take(time.monotonic()):
                await self._calls.guarded(_sending(self._imports.run(items), items), items)

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
                call = self._calls.start(self._events.send(items), items)
                call.add_done_callback(lambda _: self._open_events.release())

    async def pump_alone(self) -> None:
        """Rename and delete contacts, each in the order that was said.  Runs until cancelled."""
        while True:
            await self._gate.passed()
            item = self._alone.next()
            if item is None:
                await self._calls.any_news()
            else:
                await asyncio.wait(
                    [self._calls.start(self._alone.settle(item, self._calls.any_news), [item])]
                )

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
            gone = [item for item in absent if self._alone.whom(item)[1]]  # deleted while it was looked for
            await self._ends.end(gone, "superseded")
            for item in (item for item in absent if item not in gone):
                item.tries += 1  # another try is another batch, with receipts of its own
                item.now_called = self._alone.whom(item)[0]
                self._desk.add(item)
            self._calls.news()

    async def finish(self) -> None:
        """Let the calls in flight end and be recorded, and give the rest back; the pumps are cancelled before."""
        self._gate.release()
        ours = self._may()
        await self._calls.finish(ours=ours)
        if ours:
            for item in self._ends.held.values():
                with suppress(nats.errors.Error, OSError):  # without a broker it comes again after ack_wait
                    await item.message.nak()

    async def _ready(self, ready: Callable[[float], bool]) -> None:
        """Return when the gate is open and the desk has what may go."""
        while True:
            await self._gate.passed()
            if ready(time.monotonic()):
                return
            await self._calls.any_news()


async def _sending(work: Awaitable[None], items: Sequence[Item]) -> None:
    """The same, told as a span; a batch of events has one for each call (events.py)."""
    with spans.work(span.SINK, "consumer", papers.causes(items), papers.heard(items)):
        await work
