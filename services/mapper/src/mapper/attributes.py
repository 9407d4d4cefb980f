"""Reading task attributes: schema-less JSON that every Flex project fills in its own way.  Pure."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

LINK = re.compile(r"(?=.*\d)[\w.:/+-]{8,64}", re.ASCII)  # a sid, or an id that is as good as one
_E164 = re.compile(r"\+[1-9]\d{6,14}")  # https://www.twilio.com/docs/glossary/what-e164
_EMAIL = re.compile(  # what Brevo takes, and no more: https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1
    r"(?=.{6,254}$)[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,64})*"
    r"@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]",
    re.IGNORECASE | re.ASCII,
)
TEXT_MAX = 1000  # characters of a value, of the 4,096 that all attributes of a task have together
BITS_MAX = 200  # of a number; a longer one is none
_PHONE_LIKE = re.compile(r"[+()\d\s.-]+")

_WITHHELD = frozenset({"+266696687", "+7378742833", "+2562533", "+8656696", "+86282452253"})
# ANONYMOUS, RESTRICTED, BLOCKED, UNKNOWN and UNAVAILABLE on a telephone's keys, as Twilio passes them on:
# https://help.twilio.com/articles/223179988


def lookup(attributes: Mapping[str, Any], path: str) -> Any:
    """The value at a path such as customers.email; a key that itself has dots is found too; else None."""
    if path in attributes:
        return attributes[path]
    head, _, rest = path.partition(".")
    inner = attributes.get(head)
    return lookup(inner, rest) if rest and isinstance(inner, Mapping) else None


def scalar(value: Any) -> str | int | float | bool | None:
    """The value where it is one: not an object, a list, an empty text or nothing.  Long ones are cut.

    A number that no 64 bits hold is text: an account number, not a quantity.
    """
    if isinstance(value, str):
        return value[:TEXT_MAX] or None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value) if value.bit_length() <= BITS_MAX else None
    return value if isinstance(value, int | float) else None


def identifiers(attributes: Mapping[str, Any], own_numbers: frozenset[str]) -> dict[str, str]:
    """Who the customer is, as far as the attributes say: `email`, `external`, `phone`.

    Email lower case, phone E.164.  Anonymous and withheld numbers, `client:`, `sip:` and the business's own
    numbers identify nobody; names, account ids and chat identities never do.
    """
    found: dict[str, str] = {}
    for path in ("customers.email", "email", "pre_engagement_data.email", "customerAddress"):
        email = lookup(attributes, path)
        if isinstance(email, str) and _EMAIL.fullmatch(email.strip()):
            found["email"] = email.strip().lower()
            break
    external = scalar(lookup(attributes, "customers.external_id"))
    if external is not None and not isinstance(external, bool):
        found["external"] = str(external)
    outbound = is_outbound(attributes)
    for path in (
        "customers.phone",
        "customerAddress",
        *(("outbound_to", "to", "called") if outbound else ("from", "caller")),
    ):
        phone = e164(lookup(attributes, path))
        if phone and phone not in own_numbers:
            found["phone"] = phone
            break
    return found


def is_outbound(attributes: Mapping[str, Any]) -> bool:
    """Whether the business called: then the customer is `to`, not `from`."""
    direction = attributes.get("direction") or lookup(attributes, "conversations.direction")
    return isinstance(direction, str) and direction.lower().startswith("outbound")


def e164(address: Any) -> str:
    """A customer's phone number in E.164, its channel's prefix (whatsapp:, rcs:) off; else an empty text."""
    if not isinstance(address, str):
        return ""
    number = address.strip().rpartition(":")[2]
    return (
        number
        if _E164.fullmatch(number) and number not in _WITHHELD and not address.startswith(("client:", "sip:"))
        else ""
    )


def identity(attributes: Mapping[str, Any]) -> str | None:
    """How Flex knows the customer: a chat identity or an address, as Flex has it."""
    caller = ("outbound_to", "to") if is_outbound(attributes) else ("from", "caller")
    return _first(
        scalar(attributes.get("identity")),
        scalar(attributes.get("customerAddress")),
        *(value for name in caller if e164(value := attributes.get(name))),
        scalar(attributes.get("customerId")),
    )


def friendly_name(attributes: Mapping[str, Any]) -> str | None:
    """The customer's name; a phone number standing in for one is none."""
    return _first(*(
        name
        for path in ("customers.name", "customerName", "pre_engagement_data.friendlyName", "name")
        if isinstance(name := lookup(attributes, path), str) and not _PHONE_LIKE.fullmatch(name.rpartition(":")[2])
    ))  # fmt: skip


def _first(*values: Any) -> str | None:
    return next((str(value).strip() for value in values if value is not None and str(value).strip()), None)


def json_object(value: object) -> dict[str, Any]:
    """An object, given as one or as JSON text (as Twilio gives attributes); {} for anything else."""
    if isinstance(value, str) and value:
        try:
            value = msgspec.json.decode(value)
        except (msgspec.MsgspecError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def as_number(value: object) -> float | None:
    """A finite number, given as one or as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return (
        number if abs(number) < 1e9 else None
    )  # a score of a billion is no score; nan and inf fall here too


def text(fields: Mapping[str, Any], name: str) -> str:
    """A value as text, without the spaces around it; an empty text where there is none."""
    value = fields.get(name)
    if value is None:  # as most are
        return ""
    if not isinstance(value, str):
        value = scalar(value)
    return value[:TEXT_MAX].strip() if isinstance(value, str) else "" if value is None else str(value)


def links(*ids: object) -> tuple[str, ...]:
    """Those that name one interaction: sids, and ids long enough that no two strangers share one such as `n/a`."""
    return tuple(dict.fromkeys(id_ for id_ in ids if isinstance(id_, str) and LINK.fullmatch(id_)))
