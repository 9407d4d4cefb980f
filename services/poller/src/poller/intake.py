"""What was read goes into the log, if it is not there already.

The order of effects for each page of a window, and why a crash repeats and never loses:
  1. the index includes all the log holds; 2. a page is read, and what the index does not have is published;
  3. after the last page, whoever reads moves a cursor to the window's end.
A crash before 3 reads the window again; by then the index has what was published.
"""

import time
from collections.abc import Awaitable, Callable, Sequence

from faststream.nats import NatsBroker

from poller import items
from poller.heard import Heard, Origin
from poller.items import Item
from poller.metrics import Metrics
from shared import bus, dead, span, spans, trace
from shared.backfill import Count
from shared.erasure import Watch
from shared.event import to_message
from shared.message import MSG_ID, Message
from shared.tombstone import sids_in
from shared.topology import TWILIO

Publish = Callable[[Sequence[Message]], Awaitable[None]]


class Intake:
    """One for everything that reads."""

    def __init__(self, broker: NatsBroker, publish: Publish, heard: Heard, metrics: Metrics) -> None:
        self._broker = broker
        self._publish = publish
        self._heard = heard
        self._metrics = metrics
        self._erasures = Watch()

    async def catch_up(self) -> None:
        """Know all the log holds now, and who was forgotten.  Raises NotPublishedError and nats' errors."""
        await self._erasures.look(bus.connected(self._broker))
        await self._heard.catch_up(self._broker)

    def origin(self, item: Item) -> Origin | None:
        """How it came into the log; None where it is not there."""
        return self._heard.origin(item.ids)

    async def store(self, read: Sequence[Item], unreadable: Sequence[items.Unreadable] = ()) -> Count:
        """Publish what is new, in this order, and what cannot be read as dead letters.  Raises NotPublishedError."""
        kept = [item for item in read if not self._is_forgotten(item)]
        missed = [item.event for item in kept if self.origin(item) is None]
        letters = [_letter(one) for one in unreadable if not self._names_forgotten(one)]
        self._metrics.forgotten.inc(len(read) - len(kept) + len(unreadable) - len(letters))
        cause, began_ns = trace.follow(spans.current()), time.time_ns()
        messages = [*(to_message(event, cause) for event in missed), *letters]
        await self._publish(messages)
        if messages:
            id_ = messages[0].headers[MSG_ID] if len(messages) == 1 else ""
            done = span.published(
                TWILIO.name, own=cause, parent="", id_=id_, count=len(messages),
                start_ns=began_ns, end_ns=time.time_ns(), about={},
            )  # fmt: skip
            spans.call(done)
        count = Count(read=len(read), missed=len(missed), unreadable=len(unreadable))
        self._metrics.read.inc(count.read)
        self._metrics.missed.inc(count.missed)
        self._metrics.unreadable.inc(count.unreadable)
        return count

    def _is_forgotten(self, item: Item) -> bool:
        """Whether it is about somebody who was forgotten, and of before."""
        tombstones, event = self._erasures.tombstones, item.event
        if not tombstones:
            return False
        return tombstones.cover({*item.ids, event.subject} | sids_in(event.body), event.time_ms)

    def _names_forgotten(self, one: items.Unreadable) -> bool:
        """What nobody can read does not say when it happened; so what it names counts."""
        return bool(self._erasures.tombstones) and self._erasures.tombstones.cover(sids_in(one.body), 0)


def _letter(one: items.Unreadable) -> Message:
    return dead.to_message(
        who="poller", why=one.why, where=one.source, msg_id=one.id, body=one.body, headers={}
    )
