"""Who is who: identifiers seen together in one interaction are one customer.  Pure, and the same in any order.

Emails and external ids are strong: two that were seen together are one customer's, and so on along the chain.
A phone belongs to the one customer it was seen with; seen with several it is shared: a customer of its own, and
nobody's SMS.  All of this is a function of which identifiers were seen together and when each was first seen, and
both only grow; hence order and repetition do not matter, a merge is never undone, and a phone may still change hands.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from mapper.interaction import Seen, see

PREFIX = "tajo-"  # of every ext_id of ours: another's is never overwritten
BESIDE_MAX = (
    100  # phones kept with an identifier, and strong identifiers with a phone: a switchboard meets thousands
)

_RANK = {"email": 0, "external": 1, "phone": 2}  # among identifiers first seen in one event


class Known(Struct, array_like=True, gc=False):
    """An identifier, over all interactions."""

    seen: Seen
    beside: set[str] = (
        set()
    )  # what it was seen with in one interaction: strong ones; with a strong one also phones
    customer: str = ""  # whose it is: Brevo's ext_id


def is_phone(identifier: str) -> bool:
    """Whether it is weak: a phone may be several people's."""
    return identifier.startswith("phone:")


def customer_id(identifier: str) -> str:
    """From the earliest identifier; it tells nobody who it is."""
    return PREFIX + hashlib.sha256(identifier.encode()).hexdigest()[:24]


def shared_id(phone: str) -> str:
    """Of a customer who is only a shared phone: never the id of somebody it once belonged to."""
    return customer_id(f"shared {phone}")


def earliest(seen: Mapping[str, Seen]) -> str:
    """The identifier seen first, by (event time, event id); an empty text for none."""
    return min(
        seen,
        key=lambda key: (seen[key].first_ms, seen[key].first_id, _RANK[key.partition(":")[0]], key),
        default="",
    )


def anchor(seen: Mapping[str, Seen]) -> str:
    """The identifier that says whose an interaction is: a strong one if there is any, else a phone; the earliest."""
    return earliest({key: when for key, when in seen.items() if not is_phone(key)}) or earliest(seen)


def note(known: dict[str, Known], seen: Mapping[str, Seen]) -> None:
    """Join the identifiers seen in one interaction to what is known.  Changes `known` only; idempotent."""
    for key, when in seen.items():
        if (one := known.get(key)) is None:
            one = known[key] = Known(Seen(when.first_ms, when.first_id, when.last_ms, when.last_id))
        else:
            see(one.seen, when)
        others = {other for other in seen if other != key and not (is_phone(key) and is_phone(other))}
        if not others <= one.beside:
            one.beside |= others
            one.beside = _bounded(one.beside, strong=not is_phone(key))


def _bounded(beside: set[str], *, strong: bool) -> set[str]:
    """At most BESIDE_MAX where chains do not end: the first by name, so that order does not matter."""
    kept = {key for key in beside if strong and not is_phone(key)}
    return kept | set(sorted(beside - kept)[:BESIDE_MAX])


def owners(known: Mapping[str, Known], whole: Collection[str]) -> dict[str, str]:
    """Whose each identifier is, by what was seen together.

    `whole` names the customers all of whose identifiers are given; another keeps its id, and a phone of which not
    all it was seen with is given keeps its customer.
    """
    root = _Roots(key for key in known if not is_phone(key))
    by_customer: dict[str, str] = {}
    for key, one in known.items():
        if not is_phone(key):
            if one.customer:
                root.join(key, by_customer.setdefault(one.customer, key))
            for other in one.beside:
                if other in known and not is_phone(other):
                    root.join(key, other)
    found: dict[str, str] = {}
    groups: dict[str, list[str]] = defaultdict(list)
    for key, one in known.items():
        if not is_phone(key):
            groups[root.of(key)].append(key)
        elif any(other not in known for other in one.beside):
            found[key] = one.customer or customer_id(key)
        else:
            near = {root.of(other) for other in one.beside}
            if len(near) == 1:
                groups[near.pop()].append(key)
            else:
                found[key] = shared_id(key) if near else customer_id(key)
    for members in groups.values():
        before = {known[key].customer for key in members if not is_phone(key)} - {""}
        id_ = (
            customer_id(earliest({key: known[key].seen for key in members}))
            if all(customer in whole for customer in before)
            else min(before)
        )
        found.update(dict.fromkeys(members, id_))
    return found


def successors(known: Mapping[str, Known], found: Mapping[str, str]) -> dict[str, str]:
    """Customers that are no more → who they are now.  The strong identifiers of one stay together, so they say."""
    alive = set(found.values())
    now: dict[str, str] = {}
    for key in sorted(found, key=is_phone):
        before = known[key].customer
        if before and before not in alive:
            now.setdefault(before, found[key])
    return now


class _Roots:
    """Union-find over strong identifiers."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._up = {key: key for key in keys}

    def of(self, key: str) -> str:
        while self._up[key] != key:
            self._up[key] = key = self._up[self._up[key]]
        return key

    def join(self, one: str, other: str) -> None:
        self._up[self.of(one)] = self.of(other)
