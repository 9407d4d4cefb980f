"""Making the book whole before anything is heard: it is missing, or older than what was acked.

The log has all of it.  The order, and why a crash repeats and never loses:
  1. fold what was acked, a batch and the sequence it ends with in one transaction; events go to the outbox, which
     waits; contacts are not said, because most would be said many times over;
  2. say every contact that is not as Brevo was told, ahead of the events, a few hundred in one transaction;
  3. publish the outbox; from here on all is as usual.
After a crash it goes on where it was.  Events that Brevo has are said again to the sink, whose ledger keeps them;
only so is it certain that what waited in the book, when it was lost, is said at all.
"""

import time

import structlog
from faststream.nats import NatsBroker

from mapper.mapping import Mapping
from shared.past import acked, past
from shared.topology import MAPPER

TELL_S = 2.0  # between two lines of progress in the log

log = structlog.get_logger()


async def rebuild(broker: NatsBroker, mapping: Mapping) -> None:
    """Return when the book includes everything that was acked.  Takes a minute for a million events."""
    async with mapping.alone():
        mapping.stuck = "looking whether the book is whole"
        to = await acked(broker, MAPPER)
        first = mapping.sequence
        began = time.monotonic()
        with mapping.unhurried():
            await _refold(broker, mapping, to)
            folded = time.monotonic()
            await mapping.retell()
        if first < to:
            log.warning(
                "book_rebuilt",
                events=to - first,
                fold_s=round(folded - began, 1),
                seconds=round(time.monotonic() - began, 1),
            )
        mapping.stuck = ""


async def _refold(broker: NatsBroker, mapping: Mapping, to: int) -> None:
    first = at = mapping.sequence
    began = told = time.monotonic()
    if at < to:
        log.warning("rebuilding_book", at=at, to=to)
    async for messages in past(broker, MAPPER.stream, after=at, to=to):
        mapping.refold(messages)
        at = mapping.sequence
        mapping.stuck = f"rebuilding the book: {at:,} of {to:,}"
        if (now := time.monotonic()) - told > TELL_S:
            told = now
            log.warning("rebuilding_book", at=at, to=to, per_s=round((at - first) / (now - began)))
