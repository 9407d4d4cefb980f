"""What a replay changes: what Brevo was told against what another mapping makes of the same log.  Pure."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from mapper.customer import Contact
from mapper.identity import Known, earliest, is_phone
from shared.command import ContactRelink, ContactUpsert, Value
from shared.event import rfc3339
from shared.plan import Asked, Contacted, ContactLine, Summary


class Before(Struct, frozen=True):
    """What Brevo was told of a contact."""

    ext_id: str
    contact: Contact
    mailed: bool  # whether it was ever told an email


class Standing(Struct, frozen=True):
    """What Brevo will hold under a name once all that it takes over is renamed, before anything more is told."""

    before: Before | None  # None: Brevo was never told
    was: tuple[tuple[str, bool], ...] = ()  # names it takes over, in order, each with whether it is `over`
    mailed: bool = False


def successor(identifiers: Mapping[str, Known], now: Mapping[str, str]) -> str:
    """Whose a customer's identifiers are under another mapping: the earliest strong one says so, else the earliest phone.

    An empty text where nobody has any of them.
    """
    seen = {key: one.seen for key, one in identifiers.items() if key in now}
    strong = {key: when for key, when in seen.items() if not is_phone(key)}
    return now.get(earliest(strong) or earliest(seen), "")


def standing(own: Before | None, taken: Sequence[Before]) -> Standing:
    """What renaming leaves, in the order of the names; the contact with the email goes on, as the sink does it."""
    before, mailed = own, own is not None and own.mailed
    was: list[tuple[str, bool]] = []
    for one in sorted(taken, key=lambda one: one.ext_id):
        over = one.mailed and not mailed
        was.append((one.ext_id, over))
        if before is None or over:
            before = one
        mailed = mailed or one.mailed
    return Standing(before, tuple(was), mailed)


def line(ext_id: str, stands: Standing, wanted: Contact, *, again: bool) -> ContactLine | None:
    """What is done to a contact; None where it is, and nobody wants it told again."""
    was = tuple(name for name, _ in stands.was)
    attributes: dict[str, tuple[Value | None, Value | None]]
    if stands.before is None:
        attributes = {name: (None, value) for name, value in wanted.attributes.items()}
        return ContactLine(
            ext_id=ext_id,
            action="create",
            email=(None, wanted.email) if wanted.email else None,
            attributes=attributes,
            lists=wanted.list_ids,
        )
    before = stands.before.contact
    attributes = {
        name: (before.attributes.get(name), value)
        for name, value in wanted.attributes.items()
        if not _same(before.attributes.get(name), value)
    }
    email = (before.email, wanted.email) if wanted.email and wanted.email != before.email else None
    joined = tuple(id_ for id_ in wanted.list_ids if id_ not in before.list_ids)
    kept = _kept(before, wanted)
    lists_kept = tuple(id_ for id_ in before.list_ids if id_ not in wanted.list_ids)
    action: Contacted
    if attributes or email or joined or was:
        action = "change"
    elif again:
        action = "again"
    elif kept or lists_kept:
        action = "keep"
    else:
        return None
    return ContactLine(
        ext_id=ext_id,
        action=action,
        was=was,
        email=email,
        attributes=attributes,
        kept=kept,
        lists=joined,
        lists_kept=lists_kept,
    )


def _same(one: Value | None, other: Value | None) -> bool:
    """Python takes 1 and True for equal; Brevo does not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _kept(before: Contact, wanted: Contact) -> dict[str, Value]:
    kept = {name: value for name, value in before.attributes.items() if name not in wanted.attributes}
    return {**kept, **({"email": before.email} if before.email and not wanted.email else {})}


def left(before: Before) -> ContactLine:
    """A contact that is nobody's under the mapping."""
    kept = _kept(before.contact, Contact(None, {}, ()))
    return ContactLine(ext_id=before.ext_id, action="leave", kept=kept, lists_kept=before.contact.list_ids)


def claims(one: ContactLine) -> dict[str, str]:
    """Identifiers Brevo is told anew, by what they are called: "email" and "SMS"."""
    found = {"email": one.email[1] if one.email else None, "SMS": one.attributes.get("SMS", (None, None))[1]}
    return {name: str(value) for name, value in found.items() if value is not None}


def keeps(one: ContactLine) -> dict[str, str]:
    """Identifiers the contact keeps at Brevo though it is no longer told them."""
    return {name: str(one.kept[name]) for name in ("email", "SMS") if name in one.kept}


def tells(one: ContactLine | None) -> bool:
    """Whether Brevo is told anything."""
    return one is not None and one.action in ("create", "change", "again")


def upsert(one: ContactLine, wanted: Contact, mapping: str, *, version: int, replay: str) -> ContactUpsert:
    """The command of a line.  Its id is the replay's: what was told before is told again."""
    return ContactUpsert(
        id=f"{one.ext_id}/{version}/{mapping}/{wanted.hash}/{replay}",
        ext_id=one.ext_id,
        version=version,
        mapping=mapping,
        email=wanted.email,
        attributes=wanted.attributes,
        list_ids=wanted.list_ids,
    )


def relink(was: str, now: str, *, over: bool, version: int, replay: str) -> ContactRelink:
    """The command that names a contact anew.  Its id is the replay's: a name may come back."""
    return ContactRelink(
        id=f"{was}/{now}/{version}/{replay}", ext_id=now, was=was, version=version, over=over
    )


def since(asked: Asked) -> str:
    """The earliest time (RFC 3339) of an event that is sent; an empty text for all."""
    return "" if asked.send_old_events else rfc3339(asked.at_ms - round(asked.event_age_max_s * 1000))


def count(summary: Summary, one: ContactLine) -> Summary:
    """The summary with this line too."""
    return msgspec.structs.replace(
        summary,
        relinks=summary.relinks + len(one.was),
        conflicts=summary.conflicts + bool(one.conflicts),
        lists=summary.lists + len(one.lists),
        **{one.action: getattr(summary, one.action) + 1},
    )
