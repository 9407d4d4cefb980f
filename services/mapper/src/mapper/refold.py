"""Folding again what was acked long ago, into a book that is not heard into meanwhile: a rebuild, a draft, another account's.

Events go to the outbox, and nothing is published.  Contacts are not said, because most would be said many times over: the
book remembers that, and `retell` says each once, ahead of the events.  A batch and the sequence it ends with are one
transaction: after a crash it goes on where it was.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from nats.aio.msg import Msg

from mapper.book import Book
from mapper.made import Made, to_message
from mapper.readout import Readout, read_out
from mapper.step import Policy
from mapper.take import look, retell, take
from shared import span, spans
from shared.tombstone import Tombstones
from shared.topology import MAPPER
from shared.trace import TRACEPARENT


class Refold:
    """Of one book, by one mapping."""

    def __init__(
        self, book: Book, policy: Policy, tombstones: Tombstones, *, now: Callable[[], float] = time.time
    ) -> None:
        """Of whom `tombstones` has, nothing of before is folded."""
        self._book = book
        self._policy = policy
        self._tombstones = tombstones
        self._now = now

    def hear(self, messages: Sequence[Msg]) -> Readout:
        """Fold these; returns what was read in them."""
        batch = read_out(messages, self._policy.reading, self._tombstones)
        self.take_in(batch)
        return batch

    def take_in(self, batch: Readout) -> None:
        """The same, of what was read already."""
        count = batch.customers + batch.others + batch.unreadable + len(batch.forgotten)
        with spans.Again(span.REFOLD, stream=MAPPER.stream, count=count) as again, self._book:
            events = [(heard, again.follow({TRACEPARENT: cause})) for heard, cause in batch.events]
            made = take(
                self._book, events, self._policy,
                now_ms=batch.stored_ms, sequence=batch.sequence, contacts=False,
            )  # fmt: skip
            self._put_out(made)
            self._book.retelling = True

    def let_go(self, now_ms: int) -> None:
        """What has waited long enough by then for the rest of its story, as a mapper does."""
        while self._book.is_due(now_ms):
            with self._book:
                self._put_out(look(self._book, self._policy, now_ms=now_ms, contacts=False))
                self._book.retelling = True

    async def retell(self) -> None:
        """Put the contacts that were left out ahead of everything in the outbox, of which nothing was published yet."""
        after = ""
        while self._book.retelling:
            with spans.Again(span.RETELL) as again, self._book:
                made, after = retell(self._book, self._policy, after=after)
                self._book.put_out((to_message(one, again.own, past=True) for one in made), first=True)
                self._book.retelling = bool(after)
            await asyncio.sleep(0)  # health is asked meanwhile

    def _put_out(self, made: Made) -> None:
        self._book.put_out(made.messages(now_ms=round(self._now() * 1000), heard_past=True))
