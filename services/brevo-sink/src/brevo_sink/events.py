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
from collections.abc import Awaitable, Callable, Sequence

import structlog

from brevo_sink import answer, papers, request
from brevo_sink.alone import Alone
from brevo_sink.answer import Halve, InDoubt, Outcome, Partly, Singly
from brevo_sink.brevo import Brevo, Lost, NotSent, Reply
from brevo_sink.desk import Desk, Item
from brevo_sink.doubt import Doubts
from brevo_sink.ends import Ends
from brevo_sink.gate import Gate
from brevo_sink.ledger import Ledger
from brevo_sink.metrics import Metrics
from shared import span, spans
from shared.command import EventTrack
from shared.verdict import Done, Reject, Retry

BATCH_AGAIN_S = 3600.0  # after so long an account that may send no batches is asked again

Send = Callable[[list[Item], Sequence[Item]], Awaitable[bool]]

log = structlog.get_logger()


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
        alone: Alone,
        metrics: Metrics,
    ) -> None:
        self._brevo = brevo
        self._ledger = ledger
        self._desk = desk
        self._ends = ends
        self._gate = gate
        self._doubts = doubts
        self._alone = alone
        self._metrics = metrics
        self._refusal = ""  # why this account may send no batches
        self._batch_again = 0.0  # when a batch is tried again

    @property
    def note(self) -> str:
        """What a person should know; an empty text when all is well."""
        return f"events go one by one: Brevo refuses batches ({self._refusal})" if self._refusal else ""

    async def send(self, items: Sequence[Item]) -> None:
        """Send events in as few calls as Brevo takes, and settle what came of each."""
        whys = {item.command.id: why for item in items if (why := request.unfit(_event(item)))}
        unfit = [item for item in items if item.command.id in whys]
        await self._ends.reject(unfit, [whys[item.command.id] for item in unfit])
        by_id = {item.command.id: item for item in items if item.command.id not in whys}
        batches = [[by_id[one.id] for one in batch] for batch in request.batches(map(_event, by_id.values()))]
        await self._in_turn(batches, self._send)
        if not batches:
            self._brevo.no_turn("events")
        self._desk.done({item.ext_id for item in items})

    async def _in_turn(self, pieces: Sequence[list[Item]], send: Send, rest: Sequence[Item] = ()) -> bool:
        """One after the other; whether all had their answer.  Where one must wait the rest waits behind it.

        The first has its turn at Brevo already, the others take one each.
        """
        for number, piece in enumerate(pieces):
            if number:
                await self._brevo.turn("events")
            behind = [item for later in pieces[number + 1 :] for item in later]
            if not await send(piece, [*behind, *rest]):
                return False
        return True

    async def _send(self, items: list[Item], rest: Sequence[Item]) -> bool:
        """A batch, or where this account may send none, each alone."""
        if not self._refusal or time.monotonic() >= self._batch_again:
            return await self._call(items, rest)
        return await self._in_turn([[item] for item in items], self._call_singly, rest)

    async def _call_singly(self, items: list[Item], rest: Sequence[Item]) -> bool:
        return await self._call(items, rest, singly=True)

    async def _call(self, items: list[Item], rest: Sequence[Item], *, singly: bool = False) -> bool:
        """One call; whether it had its answer, else it is put off and the rest behind it.

        Halves a batch that Brevo refuses without saying which event, so that one takes no other along.
        """
        await self._gate.passed()
        with spans.work(span.SINK, "consumer", papers.causes(items), papers.heard(items)):
            return await self._told(items, rest, singly=singly)

    async def _told(self, items: list[Item], rest: Sequence[Item], *, singly: bool) -> bool:
        # Each call has a name of its own: the receipt of a second try must not be dropped as that of the first.
        name = f"{items[0].position}-{items[-1].position}-{len(items)}-{secrets.token_hex(4)}"
        ids = [item.command.id for item in items]
        self._ledger.write(ids, "sending", name)
        await self._ends.tell(papers.said("sending", items, batch=name))
        outcome = await self._outcome(items, singly=singly)
        match outcome:
            case Done():
                if self._refusal and not singly:
                    self._refusal = ""
                    log.info("batches_again")
                self._ledger.write(ids, "delivered", name)
                await self._ends.end(items, "delivered", batch=name)
            case Partly(refused):
                taken = [item for n, item in enumerate(items) if n not in refused]
                self._ledger.write([item.command.id for item in taken], "delivered", name)
                await self._ends.reject([items[n] for n in refused], list(refused.values()))
                await self._ends.end(
                    taken, "delivered", batch=name
                )  # last: a reject among these is none in a row
            case Reject(why):
                await self._ends.reject(items, [why] * len(items))
            case Halve():
                await self._unsent(items, name)
                for item in items:
                    item.tries += 1
                await self._brevo.turn("events")
                middle = len(items) // 2
                return await self._in_turn([items[:middle], items[middle:]], self._call, rest)
            case Singly(why):
                if not self._refusal:
                    log.warning("batches_refused", why=why, again_s=BATCH_AGAIN_S)
                self._refusal, self._batch_again = why, time.monotonic() + BATCH_AGAIN_S
                await self._unsent(items, name)
                await self._brevo.turn("events")
                return await self._send(items, rest)
            case InDoubt(why):
                spans.fail(why)
                self._ledger.write(ids, "in_doubt", name)
                await self._ends.tell(papers.said("in_doubt", items, batch=name, why=why))
                self._metrics.ambiguous.labels("event.track").inc(len(items))
                await self.in_doubt(items)
            case _:
                await self._unsent(items, name)
                await self._ends.later([*items, *rest], outcome)
                return False
        return True

    async def _outcome(self, items: Sequence[Item], *, singly: bool) -> Outcome:
        bodies = [
            request.event(_event(item), self._ledger.foreign_name(item.ext_id) or item.ext_id)
            for item in items
        ]
        if singly:
            result = await self._brevo.call("POST", "/events", json=bodies[0])
        else:
            result = await self._brevo.call("POST", "/events/batch", json={"events": bodies})
        match result:
            case NotSent(why):
                return Retry(why, answer.AGAIN_S)
            case Lost(why):
                return InDoubt(why)
            case Reply(status, headers, body) if singly:
                return answer.of_event(status, headers, body)
            case Reply(status, headers, body):
                return answer.of_events(status, headers, body, len(items))

    async def _unsent(self, items: Sequence[Item], batch: str) -> None:
        """Nothing took effect."""
        self._ledger.forget(item.command.id for item in items)
        await self._ends.tell(papers.said("unsent", items, batch=batch))

    async def in_doubt(self, items: Sequence[Item]) -> None:
        """Nobody knows whether these arrived: each goes on as its rule says.  The ledger has them in doubt."""
        again: list[Item] = []
        unresolved: list[Item] = []
        for item in items:
            match item.command:
                case EventTrack(delivery="at_least_once"):
                    item.tries += 1
                    item.now_called = self._alone.whom(item)[0]
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


def _event(item: Item) -> EventTrack:
    assert isinstance(item.command, EventTrack)  # noqa: S101 - the desk keeps them apart
    return item.command
