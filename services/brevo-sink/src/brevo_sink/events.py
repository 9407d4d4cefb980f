"""Events: in batches, each once.

The order for an event, and why a crash repeats and never doubles:
  1. ledger `sending`, on disk;   2. a receipt names what is about to be sent;   3. the call;
  4. ledger `delivered`;          5. the receipt;                                6. ack.
A crash before 3 or after leaves `sending`, which a start turns into `in_doubt`, which is read back before it is
sent again.  After 4 the command may come again, and is acked unsent.  A contact needs no 1 and 2: sending it
again is harmless.  What is rejected is a dead letter before it is acked.
The ledger is written before the receipt, always: so it includes every receipt of ours that RECEIPTS holds, and a
ledger made of the receipts alone (fold.py) knows of every call that was made.
"""

import secrets
import time
from collections.abc import Sequence

from brevo_sink import answer, papers, request
from brevo_sink.answer import Halve, InDoubt, Outcome, Partly
from brevo_sink.brevo import Brevo, Lost, NotSent
from brevo_sink.desk import Desk, Item
from brevo_sink.doubt import Doubts
from brevo_sink.ends import Ends
from brevo_sink.gate import Gate
from brevo_sink.ledger import Ledger
from brevo_sink.metrics import Metrics
from shared.command import EventTrack
from shared.verdict import Done, Reject, Retry


class Events:
    """The way of events to Brevo."""

    def __init__(
        self,
        *,
        brevo: Brevo,
        ledger: Ledger,
        desk: Desk,
        ends: Ends,
        gate: Gate,
        doubts: Doubts,
        metrics: Metrics,
    ) -> None:
        self._brevo = brevo
        self._ledger = ledger
        self._desk = desk
        self._ends = ends
        self._gate = gate
        self._doubts = doubts
        self._metrics = metrics

    async def send(self, items: Sequence[Item]) -> None:
        """Send events in as few batches as Brevo takes, and settle what came of each."""
        by_id = {item.command.id: item for item in items}
        for batch in request.batches(item.command for item in items if isinstance(item.command, EventTrack)):
            await self._send([by_id[one.id] for one in batch])
        self._desk.done({item.ext_id for item in items})

    async def _send(self, items: list[Item]) -> None:
        """One batch.  Halves it where Brevo refuses it without saying which, so that one takes no other along."""
        await self._gate.passed()
        # Each call has a name of its own: the receipt of a second try must not be dropped as that of the first.
        name = f"{items[0].position}-{items[-1].position}-{len(items)}-{secrets.token_hex(4)}"
        ids = [item.command.id for item in items]
        self._ledger.write(ids, "sending", name)
        await self._ends.tell(papers.said("sending", items, batch=name))
        body = {
            "events": [
                request.event(item.command, self._ledger.foreign_name(item.ext_id) or item.ext_id)
                for item in items
                if isinstance(item.command, EventTrack)
            ]
        }
        result = await self._brevo.call("POST", "/events/batch", json=body)
        match result:
            case NotSent(why):
                outcome: Outcome = Retry(why, answer.AGAIN_S)
            case Lost(why):
                outcome = InDoubt(why)
            case _:
                outcome = answer.of_events(result.status, result.headers, result.body, len(items))
        match outcome:
            case Done():
                await self._delivered(items, name)
            case Partly(refused):
                await self._delivered([item for n, item in enumerate(items) if n not in refused], name)
                await self._ends.reject([items[n] for n in refused], list(refused.values()))
            case Reject(why):
                await self._ends.reject(items, [why] * len(items))
            case Halve():
                self._ledger.forget(ids)
                await self._ends.tell(papers.said("unsent", items, batch=name))
                for half in (items[: len(items) // 2], items[len(items) // 2 :]):
                    for item in half:
                        item.tries += 1
                    await self._brevo.turn("events")
                    await self._send(half)
            case InDoubt(why):
                self._ledger.write(ids, "in_doubt", name)
                await self._ends.tell(papers.said("in_doubt", items, batch=name, why=why))
                self._metrics.ambiguous.labels("event.track").inc(len(items))
                await self.in_doubt(items)
            case _:
                self._ledger.forget(ids)
                await self._ends.tell(papers.said("unsent", items, batch=name))
                await self._ends.later(items, outcome)

    async def in_doubt(self, items: Sequence[Item]) -> None:
        """Nobody knows whether these arrived: each goes on as its rule says.  The ledger has them in doubt."""
        again: list[Item] = []
        unresolved: list[Item] = []
        for item in items:
            match item.command:
                case EventTrack(delivery="at_least_once"):
                    item.tries += 1
                    item.now_called = self._ledger.current(item.command.ext_id)
                    again.append(item)
                case EventTrack(delivery="at_most_once"):
                    unresolved.append(item)
                case _:
                    self._doubts.add(item)
        self._ledger.write([item.command.id for item in unresolved], "unresolved")
        await self._ends.end(unresolved, "unresolved", why="in doubt, and to be sent once at most")
        self._metrics.read_back.labels("unresolved").inc(len(unresolved))
        await self._ends.back(again, not_before=time.monotonic() + answer.AGAIN_S)
        self._metrics.read_back.labels("sent_again").inc(len(again))

    async def _delivered(self, items: Sequence[Item], batch: str) -> None:
        self._ledger.write([item.command.id for item in items], "delivered", batch)
        await self._ends.end(items, "delivered", batch=batch)
