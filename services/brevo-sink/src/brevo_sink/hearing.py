"""Hearing: what is heard is put on the desk, or has ended already.  The order of what is written stands in ends.py."""

import asyncio
from collections.abc import Callable

import nats.errors
from nats.aio.msg import Msg

from brevo_sink import papers
from brevo_sink.alone import Alone
from brevo_sink.desk import Desk, Item, version
from brevo_sink.ends import Ends
from brevo_sink.events import Events
from brevo_sink.gate import Gate
from brevo_sink.ledger import Ledger
from brevo_sink.metrics import Metrics
from shared.command import ContactDelete, ContactRelink, ContactUpsert, EventTrack
from shared.tombstone import Tombstones
from shared.topology import BREVO_SINK

ALIVE_S = BREVO_SINK.ack_wait_s / 4  # how often JetStream hears that we still have what we have


class Hearing:
    """The way of commands into our hands."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        desk: Desk,
        ends: Ends,
        alone: Alone,
        events: Events,
        gate: Gate,
        metrics: Metrics,
        news: Callable[[], None],
    ) -> None:
        """`news` is told that there is more on the desk."""
        self.forgotten = Tombstones()  # of whom nothing said up to a position of BREVO is told any more
        self._ledger = ledger
        self._desk = desk
        self._ends = ends
        self._alone = alone
        self._events = events
        self._gate = gate
        self._metrics = metrics
        self._news = news

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
                    superseded += self._upsert(item)
                elif isinstance(item.command, ContactRelink | ContactDelete) and (
                    states.get(item.command.id) != "delivered"  # one refused before is said again by a person
                ):
                    self._alone.hold(item)
                elif isinstance(item.command, ContactRelink | ContactDelete):
                    self._alone.heard(item.command.id)
                    repeated.append(item)
                elif states.get(item.command.id) in ("delivered", "unresolved"):
                    repeated.append(item)
                elif (whom := self._alone.whom(item))[1]:
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
        self._news()
        await self._gate.passed()  # what is in hand is kept alive; no more is heard while we are paused

    def _upsert(self, item: Item) -> list[Item]:
        """Hold an upsert; returns what has thereby ended."""
        assert isinstance(item.command, ContactUpsert)  # noqa: S101 - the caller looked
        name, gone = self._alone.whom(item)
        if gone or name != item.command.ext_id:  # forgotten; or told under its new name
            return [item]
        known = self._ledger.delivered(item.command.ext_id)
        if known:
            same = known[2] == item.command.mapping  # else who was heard later has the newer mapping
            if known[:2] >= version(item) if same else known[1] > item.position:
                return [item]
        older = self._hold(item)
        return [older] if older else []

    def _hold(self, item: Item) -> Item | None:
        self._ends.held[item.command.id] = item
        return self._desk.add(item)

    def holds(self, forgotten: Tombstones) -> bool:
        """Whether anything is in hand that was said of these."""
        return any(papers.is_forgotten(item, forgotten) for item in self._ends.held.values())

    async def keep_alive(self) -> None:
        """Tell JetStream that we still have what we have.  Runs until cancelled."""
        while True:
            await asyncio.sleep(ALIVE_S)
            for item in list(self._ends.held.values()):
                try:
                    await item.message.in_progress()
                except (nats.errors.Error, OSError):  # what we hold comes again, and is known
                    break
