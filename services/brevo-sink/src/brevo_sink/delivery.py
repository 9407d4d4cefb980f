"""Delivering: from commands heard to commands ended.

The order for an event, and why a crash repeats and never doubles:
  1. ledger `sending`, on disk;   2. a receipt names what is about to be sent;   3. the call;
  4. ledger `delivered`;          5. the receipt;                                6. ack.
A crash before 3 or after leaves `sending`, which a start turns into `in_doubt`, which is read back before it is
sent again.  After 4 the command may come again, and is acked unsent.  A contact needs no 1 and 2: sending it
again is harmless.  What is rejected is a dead letter before it is acked.
The ledger is written before the receipt, always: so it includes every receipt of ours that RECEIPTS holds, and a
ledger made of the receipts alone (fold.py) knows of every call that was made.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from brevo_sink import answer, request
from brevo_sink.answer import Halve, InDoubt, Outcome, Partly, Without
from brevo_sink.brevo import CONNECTIONS, Brevo, Lost, NotSent, Reply, Result
from brevo_sink.desk import Desk, Item, version
from brevo_sink.doubt import Doubts
from brevo_sink.gate import Gate
from brevo_sink.ledger import Ledger
from brevo_sink.metrics import Metrics
from brevo_sink.relink import foreign_name, relink
from shared import command as commands
from shared import dead, receipt
from shared.bus import NotPublishedError, Publisher
from shared.command import ContactRelink, ContactUpsert, EventTrack
from shared.message import Message
from shared.receipt import Outcome as ReceiptOutcome
from shared.receipt import Receipt, Told
from shared.service import STOP_GRACE_S
from shared.topology import BREVO_SINK
from shared.trace import follow
from shared.verdict import Done, Pause, Reject, Retry

ALIVE_S = BREVO_SINK.ack_wait_s / 4  # how often JetStream hears that we still have what we have
SAY_AGAIN_S = 0.5  # between tries to publish while the broker is away
CONTACT_S = 60.0  # an event waits for its contact's upsert, which was said before it: ack_wait and room
TRIES_MAX = 8  # of what makes our own code raise
EVENT_CALLS = 2  # batches at once
RETRY_MAX_S = 60.0

log = structlog.get_logger()

T = TypeVar("T")


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
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may` says whether we may act just now: a lease's `held`."""
        self._may = may
        self._brevo = brevo
        self._ledger = ledger
        self._publisher = publisher
        self._gate = gate
        self._metrics = metrics
        self._desk = Desk(ledger.has)
        self._held: dict[str, Item] = {}  # by command id: all in hand
        self._doubts = Doubts(brevo, gate, look_s=look_s)
        self._calls: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._renaming = asyncio.Lock()
        self._open_upserts = asyncio.Semaphore(CONNECTIONS - EVENT_CALLS)
        self._open_events = asyncio.Semaphore(EVENT_CALLS)

    # -- hearing ------------------------------------------------------------------------------------------------

    async def on_batch(self, messages: list[Msg]) -> None:
        """Put commands on the desk; settle at once what has ended already."""
        items, letters = _read(messages)
        for message, letter in letters:
            await self._say([letter])
            await message.ack()
        once = [item.command.id for item in items if not isinstance(item.command, ContactUpsert)]
        states = self._ledger.states(once)
        superseded: list[Item] = []
        repeated: list[Item] = []
        for item in items:
            held = self._held.get(item.command.id)
            if held is not None:  # delivered again while we have it: only the way to settle it is new
                held.message = item.message
            elif isinstance(item.command, ContactUpsert):
                superseded += self._upsert_heard(item)
            elif isinstance(item.command, ContactRelink) and item.command.id not in states:
                self._held[item.command.id] = item
                self._desk.block(item.command.was, item.command.ext_id)
                self._begin(self._guarded(self._relink(item, item.command), [item]))
            elif states.get(item.command.id) == "delivered":
                repeated.append(item)
            elif states.get(item.command.id) in ("sending", "in_doubt"):
                self._held[item.command.id] = item
                self._doubts.add(item)
            else:
                item.now_called = self._ledger.current(item.command.ext_id)
                self._hold(item)
        await self._end(superseded, "superseded")
        await self._ack(repeated)
        self._metrics.commands.labels("event.track", "repeated").inc(len(repeated))
        self._news.set()
        await self._gate.passed()  # what is in hand is kept alive; no more is heard while we are paused

    def _upsert_heard(self, item: Item) -> list[Item]:
        """Hold an upsert; returns what has thereby ended."""
        assert isinstance(item.command, ContactUpsert)  # noqa: S101 - the caller looked
        if self._ledger.current(item.command.ext_id) != item.command.ext_id:  # told under its new name
            return [item]
        known = self._ledger.delivered(item.command.ext_id)
        if known and known[2] == item.command.mapping and known[:2] >= version(item):
            return [item]
        older = self._hold(item)
        return [older] if older else []

    def _hold(self, item: Item) -> Item | None:
        self._held[item.command.id] = item
        return self._desk.add(item)

    async def keep_alive(self) -> None:
        """Tell JetStream that we still have what we have.  Runs until cancelled."""
        while True:
            await asyncio.sleep(ALIVE_S)
            for item in list(self._held.values()):
                try:
                    await item.message.in_progress()
                except (
                    nats.errors.Error,
                    OSError,
                ):  # the broker is away; what we hold comes again, and is known
                    break
            self._metrics.in_hand.set(len(self._held))
            self._metrics.in_doubt.set(len(self._doubts))

    # -- pumps --------------------------------------------------------------------------------------------------

    async def pump_upserts(self) -> None:
        """Carry contacts to Brevo, the longest waiting first.  Runs until cancelled."""
        while True:
            await self._ready(0)
            await self._open_upserts.acquire()
            await self._brevo.turn(
                "contacts"
            )  # newer versions may come while we wait: so first wait, then take
            item = self._desk.take_upsert(time.monotonic())
            if item is None:
                self._open_upserts.release()
            else:
                self._start(self._guarded(self._upsert(item), [item]), self._open_upserts)

    async def pump_events(self) -> None:
        """Carry events to Brevo: what there is at once, in full batches when there is much.  Runs until cancelled."""
        while True:
            await self._ready(1)
            await self._open_events.acquire()
            await self._brevo.turn("events")
            items = self._desk.take_events(time.monotonic(), request.BATCH_MAX)
            if not items:
                self._open_events.release()
            else:
                self._start(self._guarded(self._events(items), items), self._open_events)

    async def watch_stranded(self) -> None:
        """Give up events of contacts nobody told of, or that Brevo refused before.  Runs until cancelled."""
        while True:
            await asyncio.sleep(CONTACT_S / 4)
            await self._gate.passed()
            items = self._desk.stranded(time.monotonic() - CONTACT_S)
            await self._reject(
                items, ["Brevo has no such contact: it was refused, or never told"] * len(items)
            )

    async def watch_doubts(self) -> None:
        """Read uncertain events back.  Runs until cancelled."""
        while True:
            found, absent = await self._doubts.look()
            self._ledger.write([item.command.id for item in found], "delivered")
            await self._end(found, "delivered")
            self._ledger.forget(item.command.id for item in absent)
            for item in absent:
                item.tries += 1  # another try is another batch, with receipts of its own
                item.now_called = self._ledger.current(item.command.ext_id)
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
        for item in self._held.values():
            with suppress(nats.errors.Error, OSError):  # without a broker it comes again after ack_wait
                await item.message.nak()

    async def _ready(self, which: int) -> None:
        """Return when the gate is open and the desk has an upsert (0) or events (1) that may go."""
        while True:
            await self._gate.passed()
            if self._desk.ready(time.monotonic())[which]:
                return
            await self._any_news()

    async def _any_news(self) -> None:
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.25):  # what was put off becomes ready by time alone
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
            held = [item for item in items if item.command.id in self._held]
            if tries >= TRIES_MAX:
                await self._reject(held, [f"{type(error).__name__} in brevo-sink"] * len(held))
            else:
                await self._again(held)
            self._desk.done(names)

    async def _again(self, items: Sequence[Item]) -> None:
        """Hear them once more: the ledger says which of them are in doubt."""
        for item in items:
            del self._held[item.command.id]
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

    # -- contacts -----------------------------------------------------------------------------------------------

    async def _upsert(self, item: Item) -> None:
        upsert = item.command
        assert isinstance(upsert, ContactUpsert)  # noqa: S101 - the desk keeps them apart
        outcome = await self._make_or_update(item, upsert)
        match outcome:
            case Done():
                self._ledger.deliver(_told(item, upsert))
                await self._end([item], "delivered", dropped=item.without)
            case Without(identifiers, why) if identifiers - item.without:
                log.warning(
                    "identifier_left_out", contact=upsert.ext_id, identifiers=sorted(identifiers), why=why
                )
                item.without |= identifiers
                await self._back([item])
            case Reject(why) | Without(_, why):
                await self._reject([item], [why])
                orphans = self._desk.orphan(upsert.ext_id)
                await self._reject(orphans, [f"its contact was refused: {why}"] * len(orphans))
            case _:
                await self._later([item], outcome)
        self._desk.done([upsert.ext_id], known=True if isinstance(outcome, Done) else None)

    async def _make_or_update(self, item: Item, upsert: ContactUpsert) -> Outcome:
        """Make it, where we never told of it: one that exists may bear somebody else's name, which is looked up first."""
        name = self._ledger.foreign_name(upsert.ext_id)
        if not name and not self._ledger.has(upsert.ext_id):
            body = request.contact(upsert, upsert.ext_id, item.without, update=False)
            result = await self._brevo.call("POST", "/contacts", json=body)
            if not isinstance(result, Reply) or not answer.exists(result.status, result.body):
                return _of_contact(result)
            found = await foreign_name(self._brevo, upsert)
            if isinstance(found, Retry):
                return found
            if found:
                log.info("named_by_another", contact=upsert.ext_id)
                self._ledger.keep_name(upsert.ext_id, found)
            name = found
            await self._brevo.turn("contacts")
        item.foreign_name = name
        body = request.contact(upsert, name or upsert.ext_id, item.without)
        return _of_contact(await self._brevo.call("POST", "/contacts", json=body))

    async def _relink(self, item: Item, command: ContactRelink) -> None:
        """One after the other, in the order heard, and while nothing is in flight for either contact."""
        async with self._renaming:
            while True:
                await self._gate.passed()
                while self._desk.busy(command.was, command.ext_id):
                    await self._any_news()
                await self._brevo.turn("contacts")
                match await relink(self._brevo, self._ledger, command):
                    case Pause() as pause:
                        self._gate.shut(pause)
                    case Retry() as retry:
                        item.tries += 1
                        await asyncio.sleep(min(retry.after_s * item.tries, RETRY_MAX_S))
                    case Reject(why):
                        await self._reject([item], [why])
                        break
                    case _:
                        self._ledger.relink(command.was, command.ext_id, command.id)
                        await self._end(self._desk.rename(command.was, command.ext_id), "superseded")
                        await self._end([item], "delivered")
                        break
        self._desk.free(command.was, command.ext_id)
        self._news.set()

    # -- events -------------------------------------------------------------------------------------------------

    async def _events(self, items: Sequence[Item]) -> None:
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
        await self._tell(_receipt("sending", items, batch=name))
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
                await self._reject([items[n] for n in refused], list(refused.values()))
            case Reject(why):
                await self._reject(items, [why] * len(items))
            case Halve():
                self._ledger.forget(ids)
                await self._tell(_receipt("unsent", items, batch=name))
                for half in (items[: len(items) // 2], items[len(items) // 2 :]):
                    for item in half:
                        item.tries += 1
                    await self._brevo.turn("events")
                    await self._send(half)
            case InDoubt(why):
                self._ledger.write(ids, "in_doubt", name)
                await self._tell(_receipt("in_doubt", items, batch=name, why=why))
                for item in items:
                    self._doubts.add(item)
            case _:
                self._ledger.forget(ids)
                await self._tell(_receipt("unsent", items, batch=name))
                await self._later(items, outcome)

    async def _delivered(self, items: Sequence[Item], batch: str) -> None:
        self._ledger.write([item.command.id for item in items], "delivered", batch)
        await self._end(items, "delivered", batch=batch)

    # -- ends ---------------------------------------------------------------------------------------------------

    async def _later(self, items: Sequence[Item], outcome: Outcome) -> None:
        match outcome:
            case Pause():
                self._gate.shut(outcome)
                await self._back(items)
            case Retry():
                await self._put_off(items, outcome)
            case _:
                raise AssertionError(f"no such outcome here: {outcome}")

    async def _put_off(self, items: Sequence[Item], retry: Retry) -> None:
        """Again, later: the bucket rests where it is full, the contacts where only they are concerned."""
        now = time.monotonic()
        for item in items:
            item.tries += 1
        rest_s = min(retry.after_s * 2 ** min(items[0].tries - 1, 6), RETRY_MAX_S)
        bucket = "contacts" if isinstance(items[0].command, ContactUpsert) else "events"
        if retry.why == "429":
            self._brevo.budget[bucket].close(now, retry.after_s)  # type: ignore[index]  # one of its names
            rest_s = 0.0
        log.debug("put_off", items=len(items), why=retry.why, rest_s=rest_s)
        await self._back(items, not_before=now + rest_s)

    async def _back(self, items: Sequence[Item], *, not_before: float = 0.0) -> None:
        await self._end(self._desk.back(items, not_before=not_before), "superseded")

    async def _reject(self, items: Sequence[Item], whys: Sequence[str]) -> None:
        """A dead letter each, then the receipt, then ack."""
        if not items:
            return
        await self._say([_letter(item, why) for item, why in zip(items, whys, strict=True)])
        self._ledger.write([i.command.id for i in items if isinstance(i.command, EventTrack)], "rejected")
        await self._end(items, "rejected", why=whys[0])

    async def _end(
        self,
        items: Sequence[Item],
        outcome: ReceiptOutcome,
        *,
        batch: str = "",
        why: str = "",
        dropped: Iterable[str] = (),
    ) -> None:
        """Say what became of items of one kind, and ack them."""
        if not items:
            return
        await self._tell(_receipt(outcome, items, batch=batch, why=why, dropped=tuple(sorted(dropped))))
        self._gate.ended(len(items), rejected=outcome == "rejected")
        self._metrics.commands.labels(commands.kind(items[0].command), outcome).inc(len(items))
        await self._ack(items)

    async def _ack(self, items: Sequence[Item]) -> None:
        for item in items:
            self._held.pop(item.command.id, None)
            try:
                await item.message.ack()
            except (nats.errors.Error, OSError):  # it comes again, and the ledger knows it
                log.debug("not_acked", id=item.command.id)

    async def _tell(self, one: Message) -> None:
        """Say a receipt, whose effect stands in the ledger, however long that takes."""
        self._ledger.said(await self._until_said(lambda: self._publisher.publish_one(one)))

    async def _say(self, messages: Sequence[Message]) -> None:
        """Publish, however long that takes."""
        await self._until_said(lambda: self._publisher.publish(messages))

    async def _until_said(self, publish: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await publish()
            except NotPublishedError as error:
                log.debug("not_said", why=str(error))
                await asyncio.sleep(SAY_AGAIN_S)


def _of_contact(result: Result) -> Outcome:
    match result:
        case NotSent(why) | Lost(why):
            return Retry(why, answer.AGAIN_S)
        case Reply(status, headers, body):
            return answer.of_contact(status, headers, body)


def _read(messages: Sequence[Msg]) -> tuple[list[Item], list[tuple[Msg, Message]]]:
    """The commands of a batch; and what is none, each with its dead letter."""
    items: list[Item] = []
    letters: list[tuple[Msg, Message]] = []
    for message in messages:
        position = message.metadata.sequence.stream
        try:
            command = commands.from_body(message.data)
        except msgspec.MsgspecError as error:
            letters.append((message, _dead(message, position, str(error))))
            continue
        trace = (message.headers or {}).get("traceparent", "")
        items.append(Item(command, position, message, trace, heard=time.monotonic()))
    return items, letters


def _told(item: Item, upsert: ContactUpsert) -> Told:
    number, position = version(item)
    return Told(
        ext_id=upsert.ext_id,
        version=number,
        position=position,
        mapping=upsert.mapping,
        name=item.foreign_name,
    )


def _letter(item: Item, why: str) -> Message:
    return _dead(item.message, item.position, why, tries=item.tries + 1)


def _dead(message: Msg, position: int, why: str, *, tries: int = 1) -> Message:
    return dead.to_message(
        who="brevo-sink",
        why=why,
        where=f"BREVO:{position}:{message.subject}",
        msg_id=f"BREVO/{position}",
        body=message.data,
        headers=message.headers or {},
        tries=tries,
    )


def _receipt(
    outcome: ReceiptOutcome,
    items: Sequence[Item],
    *,
    batch: str = "",
    why: str = "",
    dropped: tuple[str, ...] = (),
) -> Message:
    command = items[0].command
    one = Receipt(
        outcome=outcome,
        kind=commands.kind(command),
        ids=tuple(item.command.id for item in items),
        batch=batch,
        why=why,
        dropped=dropped,
        told=_told(items[0], command)
        if outcome == "delivered" and isinstance(command, ContactUpsert)
        else None,
    )
    first, last = items[0].position, items[-1].position
    return receipt.to_message(one, f"{outcome}/{first}-{last}-{len(items)}/{batch}", follow(items[0].trace))
