"""Folding another's log into a book of one's own, and out of it what Brevo shall be told: each contact once, as it is in
the end, and each event with the customer whose it is in the end.

The order, and why a crash repeats and never loses:
  1. fold the log up to a sequence, a batch and where it ends in one transaction; events go to the book's outbox;
  2. let go what waits for the rest of its story, as a mapper does ten seconds later;
  3. say every contact, into the outbox;
  4. move the outbox: first it is in the rebuild's file, then the book forgets it.
Whatever is done again changes nothing.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from faststream.nats import NatsBroker

from mapper.book import Book
from mapper.mapping import NONE_YET
from mapper.refold import Refold
from mapper.step import HOLD_MS, Policy
from shared import bus, command, erasure
from shared.command import ContactUpsert, EventTrack
from shared.config import Config
from shared.message import Message
from shared.past import past
from shared.topology import TWILIO
from tajo.rebuilt import ROWS_MAX, Rebuilt

NAMED_BY = ("task_sid", "conversation_sid")  # properties of an event that say which interaction it is of

OnLook = Callable[[str, int, int], None]
"""Told of "log": how far of which sequence it is."""


async def refold(
    source: NatsBroker, folder: Path, config: Config, rebuilt: Rebuilt, *, to: int, on_look: OnLook
) -> None:
    """Return when all that follows from the log up to this sequence stands in `rebuilt`.  Reads the source only.

    Of who was forgotten nothing of before, though the log may have it again.
    """
    book = Book(folder / "book.sqlite")
    try:
        policy = Policy.of(config)
        folding = Refold(book, policy, (await erasure.load(bus.connected(source))).tombstones())
        on_look("log", book.sequence, to)
        with book.unhurried():
            async for messages in past(source, TWILIO.name, after=book.sequence, to=to):
                folding.hear(messages)
                on_look("log", book.sequence, to)
        folding.let_go(round(time.time() * 1000) + HOLD_MS)
        _move(book, rebuilt)
        await folding.retell()
        _move(book, rebuilt)
    finally:
        book.close()


def _move(book: Book, rebuilt: Rebuilt) -> None:
    while True:
        last, messages = book.outbox(NONE_YET, ROWS_MAX)
        if not messages:
            return
        contacts, events = _commands(messages)
        rebuilt.put(contacts, _with_whom_they_are(events, book))
        with book:
            book.published(last)


def _commands(messages: Sequence[Message]) -> tuple[list[ContactUpsert], list[EventTrack]]:
    """Contacts and events; nobody was told of yet, so nobody is renamed."""
    said = [command.from_body(message.body) for message in messages]
    return (
        [one for one in said if isinstance(one, ContactUpsert)],
        [one for one in said if isinstance(one, EventTrack)],
    )


def _with_whom_they_are(events: Sequence[EventTrack], book: Book) -> Iterable[EventTrack]:
    """Each event as one of the customer whose interaction it is now: while the log was folded, that may have changed."""
    sids = {one.id: _sids(one) for one in events}
    whose = book.whose(sid for some in sids.values() for sid in some)
    for one in events:
        owner = next((whose[sid] for sid in sids[one.id] if sid in whose), one.ext_id)
        yield EventTrack(
            id=one.id, ext_id=owner, name=one.name, time=one.time, properties=one.properties,
            delivery=one.delivery,
        )  # fmt: skip


def _sids(event: EventTrack) -> list[str]:
    """The sids that may name its interaction, the surest first."""
    told = (event.properties.get(name) for name in NAMED_BY)
    return [event.id.partition("/")[0], *(sid for sid in told if isinstance(sid, str))]
