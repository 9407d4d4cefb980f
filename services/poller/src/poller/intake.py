"""What was read goes into the log, if it is not there already.

The order of effects for each page of a window, and why a crash repeats and never loses:
  1. the index includes all the log holds; 2. a page is read, and what the index does not have is published;
  3. after the last page, whoever reads moves a cursor to the window's end.
A crash before 3 reads the window again; by then the index has what was published.
"""

from collections.abc import Awaitable, Callable, Sequence

from faststream.nats import NatsBroker

from poller import items
from poller.heard import Heard, Origin
from poller.items import Item
from poller.metrics import Metrics
from shared import dead, trace
from shared.backfill import Count
from shared.event import to_message
from shared.message import Message

Publish = Callable[[Sequence[Message]], Awaitable[None]]


class Intake:
    """One for everything that reads."""

    def __init__(self, broker: NatsBroker, publish: Publish, heard: Heard, metrics: Metrics) -> None:
        self._broker = broker
        self._publish = publish
        self._heard = heard
        self._metrics = metrics

    async def catch_up(self) -> None:
        """Know all the log holds now.  Raises NotPublishedError and nats' errors."""
        await self._heard.catch_up(self._broker)

    def origin(self, item: Item) -> Origin | None:
        """How it came into the log; None where it is not there."""
        return self._heard.origin(item.ids)

    async def store(self, read: Sequence[Item], unreadable: Sequence[items.Unreadable] = ()) -> Count:
        """Publish what is new, in this order, and what cannot be read as dead letters.  Raises NotPublishedError."""
        missed = [item.event for item in read if self.origin(item) is None]
        await self._publish([
            *(to_message(event, trace.start()) for event in missed),
            *map(_letter, unreadable),
        ])  # fmt: skip
        count = Count(read=len(read), missed=len(missed), unreadable=len(unreadable))
        self._metrics.read.inc(count.read)
        self._metrics.missed.inc(count.missed)
        self._metrics.unreadable.inc(count.unreadable)
        return count


def _letter(one: items.Unreadable) -> Message:
    return dead.to_message(
        who="poller", why=one.why, where=one.source, msg_id=one.id, body=one.body, headers={}
    )
