"""How commands end, or wait: dead letter, then ledger, then receipt, then ack, so that a crash repeats and never loses."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import nats.errors
import structlog

from brevo_sink import answer, papers
from brevo_sink.answer import Outcome
from brevo_sink.brevo import UPSERT_CALLS
from brevo_sink.desk import Desk, Item
from brevo_sink.gate import Gate
from brevo_sink.ledger import Ledger
from brevo_sink.metrics import Metrics
from brevo_sink.request import BATCH_MAX
from brevo_sink.together import Together
from shared import command as commands
from shared import spans
from shared.bus import Publisher
from shared.command import ContactUpsert, EventTrack
from shared.message import Message
from shared.publish import NotPublishedError
from shared.receipt import Outcome as ReceiptOutcome
from shared.receipt import Told
from shared.verdict import Pause, Retry

SAY_AGAIN_S = 0.5  # between tries to publish while the broker is away
RETRY_MAX_S = 60.0

log = structlog.get_logger()

T = TypeVar("T")


class Ends:
    """What is in hand, and the ways out of it."""

    def __init__(
        self,
        *,
        desk: Desk,
        ledger: Ledger,
        publisher: Publisher,
        gate: Gate,
        metrics: Metrics,
    ) -> None:
        self.held: dict[str, Item] = {}  # by command id: all in hand
        self._desk = desk
        self._ledger = ledger
        self._publisher = publisher
        self._gate = gate
        self._metrics = metrics
        self._together = Together(self._delivered, UPSERT_CALLS)

    async def later(self, items: Sequence[Item], outcome: Outcome) -> None:
        """Not now: all rests where nothing can work, or what is concerned waits for its next try."""
        match outcome:
            case Pause(why):
                spans.fail(why)
                self._gate.shut(outcome)
                await self.back(items)
            case Retry(why):
                spans.fail(answer.without_words(why))
                await self._put_off(items, outcome)
            case _:
                raise AssertionError(f"no such outcome here: {outcome}")

    async def _put_off(self, items: Sequence[Item], retry: Retry) -> None:
        """Again, later; of a full bucket the calls wait (budget.py), else the contacts that are concerned."""
        now = time.monotonic()
        for item in items:
            item.tries += 1
        rest_s = min(retry.after_s * 2 ** min(items[0].tries - 1, 6), RETRY_MAX_S)
        if retry.why == "429":
            rest_s = 0.0
        log.debug("put_off", items=len(items), why=retry.why, rest_s=rest_s)
        await self.back(items, not_before=now + rest_s)

    async def back(self, items: Sequence[Item], *, not_before: float = 0.0) -> None:
        """Put items back on the desk; what is superseded by now has ended."""
        await self.end(self._desk.back(items, not_before=not_before), "superseded")

    async def reject(self, items: Sequence[Item], whys: Sequence[str]) -> None:
        """A dead letter each, then the receipt, then ack."""
        if not items:
            return
        for item, why in zip(items, whys, strict=True):
            spans.fail(answer.without_words(why), [item.trace])
        await self.say([papers.letter(item, why) for item, why in zip(items, whys, strict=True)])
        once = [item.command.id for item in items if not isinstance(item.command, ContactUpsert)]
        self._ledger.write(once, "rejected")
        await self.end(items, "rejected", why=whys[0])

    async def end(
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
        await self.tell(papers.said(outcome, items, batch=batch, why=why, dropped=tuple(sorted(dropped))))
        self._gate.ended(len(items), rejected=outcome == "rejected")
        self._count(items, outcome)
        await self.ack(items)

    async def delivered(self, item: Item, told: Told) -> None:
        """Brevo has this contact as it is told: into the ledger, then the receipt, then ack."""
        await self._together(item.command.id, (item, told))

    async def _delivered(self, several: Sequence[tuple[Item, Told]]) -> None:
        self._ledger.deliver_all(told for _, told in several)
        receipts = [
            papers.said("delivered", [item], dropped=tuple(sorted(item.without))) for item, _ in several
        ]
        self._ledger.said(await self._until_said(lambda: self._publisher.publish_few(receipts)))
        items = [item for item, _ in several]
        self._gate.ended(len(items), rejected=False)
        self._count(items, "delivered")
        await self.ack(items)

    async def end_each(self, items: Sequence[Item], outcome: ReceiptOutcome) -> None:
        """As `end`, with a receipt for each item."""
        await self.say([papers.said(outcome, [item]) for item in items])
        self._gate.ended(len(items), rejected=outcome == "rejected")
        self._count(items, outcome)
        await self.ack(items)

    def _count(self, items: Sequence[Item], outcome: ReceiptOutcome) -> None:
        """How many ended so; and how long after the log stored what released them, where Brevo has them now."""
        now_ms = time.time() * 1000
        for item in items:
            kind = commands.kind(item.command)
            self._metrics.commands.labels(kind, outcome).inc()
            if outcome == "delivered" and item.stored_ms and not item.tries:
                self._metrics.latency.labels(kind).observe(max(now_ms - item.stored_ms, 0.0) / 1000)

    async def repeat(self, items: Sequence[Item]) -> None:
        """Say once more that these are delivered: who was killed after the ledger knew may not have said it."""
        events = [item for item in items if isinstance(item.command, EventTrack)]
        for start in range(0, len(events), BATCH_MAX):
            await self.tell(papers.said("delivered", events[start : start + BATCH_MAX], batch="again"))
        for item in items:
            if not isinstance(item.command, EventTrack):
                await self.tell(papers.said("delivered", [item], batch="again"))

    async def ack(self, items: Sequence[Item]) -> None:
        """Let go of items whose end is on disk and said."""
        for item in items:
            self.held.pop(item.command.id, None)
            try:
                await item.message.ack()
            except (nats.errors.Error, OSError):  # it comes again, and the ledger knows it
                log.debug("not_acked", id=item.command.id)

    async def tell(self, one: Message) -> None:
        """Say a receipt, whose effect stands in the ledger, however long that takes."""
        self._ledger.said(await self._until_said(lambda: self._publisher.publish_one(one)))

    async def say(self, messages: Sequence[Message]) -> None:
        """Publish, however long that takes."""
        await self._until_said(lambda: self._publisher.publish(messages))

    async def _until_said(self, publish: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await publish()
            except NotPublishedError as error:
                log.debug("not_said", why=str(error))
                await asyncio.sleep(SAY_AGAIN_S)
