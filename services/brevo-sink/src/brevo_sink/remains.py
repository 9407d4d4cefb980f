"""What remains in RECEIPTS of somebody who is forgotten, and what it says of others.  Pure."""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from shared.receipt import Receipt
from shared.tombstone import Tombstones

_FOLD_INTO_NOTHING = ("superseded", "no_identity")


class Remains(Struct):
    """Receipts that name them."""

    sequences: list[int] = []
    others: set[str] = set()  # events of others, of which the ledger knows what became
    again: list[Receipt] = []  # what these receipts say of others and the ledger does not keep


def parts(id_: str) -> Iterator[str]:
    """What of a command's id may be a name: it, its beginnings and what stands between slashes."""
    words = id_.split("/")
    yield from words
    for end in range(2, len(words) + 1):
        yield "/".join(words[:end])


def is_theirs(id_: str, has: Tombstones) -> bool:
    """Whether a command was about them."""
    return any(has.until_ms(part) for part in parts(id_))


def of_receipts(receipts: Iterable[tuple[int, Receipt]], has: Tombstones, into: Remains) -> None:
    """Note those that name them, each with its sequence.  Changes `into` only."""
    for sequence, one in receipts:
        mine = {id_ for id_ in one.ids if is_theirs(id_, has)}
        if not mine and not (one.told and has.until_ms(one.told.ext_id)):
            continue
        into.sequences.append(sequence)
        rest = tuple(id_ for id_ in one.ids if id_ not in mine)
        if not rest or (one.told and has.until_ms(one.told.ext_id)):
            continue
        if one.outcome in _FOLD_INTO_NOTHING or one.kind != "event.track":
            into.again.append(msgspec.structs.replace(one, ids=rest))
        else:
            into.others.update(rest)
