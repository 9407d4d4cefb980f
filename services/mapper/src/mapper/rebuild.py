"""Making the book whole before anything is heard: it is missing, or older than what was acked.

The log has all of it.  The order, and why a crash repeats and never loses:
  1. fold what was acked, a batch and the sequence it ends with in one transaction; events go to the outbox, which
     waits; contacts are not said, because most would be said many times over.  What a batch has of somebody who was
     forgotten is erased before: a log that was restored has it again;
  2. events that were said under another id get that (recognise.py);
  3. say every contact that is not as Brevo was told, ahead of the events, a few hundred in one transaction;
  4. publish the outbox; from here on all is as usual.
After a crash it goes on where it was.  Events that Brevo has are said again to the sink, whose ledger keeps them;
only so is it certain that what waited in the book, when it was lost, is said at all.
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, closing

import structlog
from faststream.nats import NatsBroker

from mapper.mapping import Mapping
from mapper.readout import Readout, read_out
from mapper.recognise import Said
from mapper.refold import Refold
from shared import command, receipt
from shared.past import acked, ends, past
from shared.topology import BREVO, MAPPER, RECEIPTS

TRACKS = ("brevo.*.event.track", f"{command.PAST}*.event.track")
TRACKED = ("receipt.*.event.track",)
BESIDE_MIN = 20_000  # raw events, some seconds: below, a second process is not worth its start
TELL_S = 2.0  # between two lines of progress in the log

log = structlog.get_logger()


Beside = Callable[[int, int], AsyncGenerator[Readout, None]]


async def rebuild(broker: NatsBroker, mapping: Mapping, beside: Beside) -> None:
    """Return when the book includes everything that was acked.  `make bench ARGS="--only rebuild"` says how long that takes.

    `beside` reads the log after one sequence up to another, in a process of its own.
    """
    async with mapping.alone():
        mapping.stuck = "looking whether the book is whole"
        to = await acked(broker, MAPPER)
        first = mapping.sequence
        began = time.monotonic()
        refold = Refold(mapping.book, mapping.policy, mapping.tombstones)
        with mapping.book.unhurried():
            await _refold(broker, mapping, refold, to, beside)
            folded = time.monotonic()
            if mapping.book.retelling:  # also where somebody was killed since
                await _recognise(broker, mapping)
            await refold.retell()
        if first < to:
            log.warning(
                "book_rebuilt",
                events=to - first,
                fold_s=round(folded - began, 1),
                seconds=round(time.monotonic() - began, 1),
            )
        mapping.stuck = ""


async def _recognise(broker: NatsBroker, mapping: Mapping) -> None:
    """By the commands, and by what the sink said of those that have left their stream."""
    mapping.stuck = "looking what Brevo was told"
    with closing(Said(mapping.book)) as said:
        to = await ends(broker, BREVO.name)
        async for messages in past(broker, BREVO.name, after=0, to=to, subjects=TRACKS):
            said.note(command.from_body(message.data).id for message in messages)
        to = await ends(broker, RECEIPTS.name)
        async for messages in past(broker, RECEIPTS.name, after=0, to=to, subjects=TRACKED):
            receipts = [receipt.from_body(message.data) for message in messages]
            said.note(id_ for one in receipts if one.outcome != "no_identity" for id_ in one.ids)
        said.recognise()


async def _refold(broker: NatsBroker, mapping: Mapping, refold: Refold, to: int, beside: Beside) -> None:
    first = mapping.sequence
    began = told = time.monotonic()
    if first < to:
        log.warning("rebuilding_book", at=first, to=to)
    read = beside(first, to) if to - first >= BESIDE_MIN else _read(broker, mapping, first, to)
    async with aclosing(read) as batches:
        async for batch in batches:
            await mapping.heard_again(batch)
            refold.take_in(batch)
            mapping.stuck = f"rebuilding the book: {batch.sequence:,} of {to:,}"
            if (now := time.monotonic()) - told > TELL_S:
                told = now
                log.warning(
                    "rebuilding_book",
                    at=batch.sequence,
                    to=to,
                    per_s=round((batch.sequence - first) / (now - began)),
                )


async def _read(broker: NatsBroker, mapping: Mapping, first: int, to: int) -> AsyncGenerator[Readout, None]:
    """What `beside` does, here."""
    async for messages in past(broker, MAPPER.stream, after=first, to=to):
        yield read_out(messages, mapping.policy.reading, mapping.tombstones)
