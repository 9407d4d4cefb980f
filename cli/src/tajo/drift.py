"""Drift: where Brevo holds something else than it shall.  Pure.

Brevo writes some values its own way: a phone without its +, a date with a time, a whole number as 3.0, an option in a
list.  That is no difference.  What others wrote, or Brevo made by itself, is none either, unless nobody else writes there.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from shared.command import Value
from shared.plan import Expected

Kind = Literal[
    "contact_missing", "contact_extra", "email", "attribute", "list_missing", "list_extra",
    "event_missing", "event_doubled", "event_extra", "event_elsewhere", "event_time",
]  # fmt: skip
"""extra: there, though nothing says so; elsewhere: at a contact of another customer."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d)T00:00:00(?:\.0+)?(?:Z|\+00:00)?")
_NOT_DIGITS = re.compile(r"\D")


class Contact(Struct, frozen=True, kw_only=True):
    """A contact as Brevo holds it."""

    id: int  # Brevo's own
    ext_id: str
    email: str = ""
    attributes: dict[str, Any] = {}
    list_ids: tuple[int, ...] = ()


class Event(Struct, frozen=True):
    """An event of ours as Brevo holds it."""

    id: str  # the idempotency key
    name: str
    time: str
    contact_id: int


class Ours(Struct, frozen=True):
    """What nobody else writes: more of it than is expected is a difference."""

    attributes: frozenset[str] = frozenset()
    lists: frozenset[int] = frozenset()


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is not as it shall be."""

    kind: Kind
    ext_id: str  # of the customer, or of the contact that nobody expects
    what: str = ""  # the attribute, list or event it is about
    expected: Value | None = None
    found: Value | None = None


def same(name: str, expected: Value, found: Any) -> bool:
    """Whether a contact's attribute is what it shall be."""
    return written(name, found, like=expected) == written(name, expected, like=expected)


def written(name: str, value: Any, *, like: Value | None = None) -> str:
    """A value as text, without Brevo's own ways; `like` is what was meant, where somebody meant something."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{float(value):.15g}"
    if isinstance(value, list):
        return "|".join(sorted(written(name, one, like=like) for one in value))
    text = "" if value is None else str(value)
    if name == "SMS":
        return _NOT_DIGITS.sub("", text).removeprefix("00")
    if isinstance(like, str) and _DAY.fullmatch(like):
        return text[: len(like)]
    midnight = _MIDNIGHT.fullmatch(text)
    return midnight[1] if midnight else text


def differences(
    expected: Expected, contact: Contact | None, found: Sequence[Event], ours: Ours, *, until: str = ""
) -> Iterator[Difference]:
    """Of one customer: its contact, and the events at any contact that is its own.

    Events that happened at `until` or later were not read back.  Of those told elsewhere nothing is known here.
    """
    yield from _of_contact(expected, contact, ours)
    yield from _of_events(expected, found, _ms(until) if until else None)


def _of_contact(expected: Expected, contact: Contact | None, ours: Ours) -> Iterator[Difference]:
    who = expected.ext_id
    if contact is None:
        yield Difference(kind="contact_missing", ext_id=who)
        return
    if expected.email and contact.email.lower() != expected.email.lower():
        yield Difference(kind="email", ext_id=who, expected=expected.email, found=contact.email)
    for name in sorted({*expected.attributes, *(ours.attributes & contact.attributes.keys())}):
        wanted, have = expected.attributes.get(name), contact.attributes.get(name)
        if have in (None, "") if wanted is None else same(name, wanted, have):
            continue
        shown = have if isinstance(have, bool | int | float | str | None) else written(name, have)
        yield Difference(kind="attribute", ext_id=who, what=name, expected=wanted, found=shown)
    for id_ in sorted(set(expected.list_ids) - set(contact.list_ids)):
        yield Difference(kind="list_missing", ext_id=who, what=str(id_))
    for id_ in sorted((set(contact.list_ids) & ours.lists) - set(expected.list_ids)):
        yield Difference(kind="list_extra", ext_id=who, what=str(id_))


def _of_events(expected: Expected, found: Sequence[Event], until_ms: int | None) -> Iterator[Difference]:
    who = expected.ext_id
    counted = Counter((event.id, event.name) for event in found)
    times = {(event.id, event.name): event.time for event in found}
    wanted = {(id_, name): time for id_, name, time in expected.events}
    for (id_, name), time in sorted(wanted.items()):
        if until_ms is not None and _ms(time) >= until_ms:
            continue
        have = counted[id_, name]
        if not have:
            yield Difference(kind="event_missing", ext_id=who, what=id_, expected=name)
        elif have > 1:
            yield Difference(kind="event_doubled", ext_id=who, what=id_, expected=1, found=have)
        elif _ms(times[id_, name]) // 1000 != _ms(time) // 1000:
            yield Difference(kind="event_time", ext_id=who, what=id_, expected=time, found=times[id_, name])
    for id_, name in sorted(counted.keys() - wanted.keys()):
        yield Difference(kind="event_extra", ext_id=who, what=id_, found=name)


def sum_of(
    expected: Expected, contact: Contact | None, found: Sequence[Event], ours: Ours
) -> tuple[bytes, bytes]:
    """What is expected of one customer and what is there, each as a hash: equal where nothing differs.

    What others wrote is in neither.
    """
    attributes = contact.attributes if contact else {}
    names = sorted({*expected.attributes, *(ours.attributes & attributes.keys())})
    wanted = {name: expected.attributes.get(name) for name in names}
    shall = [
        expected.ext_id,
        (expected.email or "").lower(),
        [(name, written(name, value, like=value)) for name, value in wanted.items()],
        sorted(set(expected.list_ids)),
        sorted((id_, name, _ms(time) // 1000) for id_, name, time in expected.events),
    ]
    lists = set(contact.list_ids) & (ours.lists | set(expected.list_ids)) if contact else ()
    is_ = [
        expected.ext_id if contact else "",
        contact.email.lower() if contact and expected.email else "",
        [(name, written(name, attributes.get(name), like=value)) for name, value in wanted.items()],
        sorted(lists),
        sorted((event.id, event.name, _ms(event.time) // 1000) for event in found),
    ]
    return _digest(shall), _digest(is_)


def counted(all_of_them: Iterable[Difference]) -> dict[Kind, int]:
    """How many of each kind."""
    return dict(Counter(one.kind for one in all_of_them))


def _digest(value: Any) -> bytes:
    return hashlib.sha256(msgspec.json.encode(value)).digest()


def _ms(time: str) -> int:
    """Epoch milliseconds; -1 for what is no time."""
    try:
        return round(datetime.fromisoformat(time).timestamp() * 1000)
    except ValueError:
        return -1
