"""What a Brevo contact is: identifiers, attributes, and which values Brevo keeps.  Pure."""

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal

from sandbox.http import BadRequestError, refused

Identifier = Literal["email", "EXT_ID", "SMS"]
ORDER: tuple[Identifier, ...] = ("email", "EXT_ID", "SMS")

_PHONE = re.compile(
    r"(?:\+|00)?([1-9]\d{6,14})"
)  # 91…, +91… and 0091… are one number; the country code always
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")


@dataclass
class Contact:
    """One contact.  SMS stands in the attributes as digits, as Brevo reads it back."""

    id: int
    created_at: datetime
    modified_at: datetime
    email: str = ""
    ext_id: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    list_ids: set[int] = field(default_factory=set)
    blocklisted: bool = False  # emailBlacklisted

    def identifier(self, which: Identifier) -> str:
        """The contact's email, EXT_ID or SMS; an empty text where it has none."""
        match which:
            case "email":
                return self.email
            case "EXT_ID":
                return self.ext_id
            case "SMS":
                return str(self.attributes.get("SMS", ""))

    def shown(self) -> dict[str, Any]:
        """As GET /contacts/{identifier} shows it; ext_id is an attribute there."""
        ext_id = {"EXT_ID": self.ext_id} if self.ext_id else {}
        return {
            **({"email": self.email} if self.email else {}),
            "id": self.id,
            "emailBlacklisted": self.blocklisted,
            "smsBlacklisted": False,
            "whatsappBlacklisted": False,
            "createdAt": stamp(self.created_at),
            "modifiedAt": stamp(self.modified_at),
            "listIds": sorted(self.list_ids),
            "listUnsubscribed": [],
            "attributes": {**self.attributes, **ext_id},
            "statistics": {},
        }


@dataclass(frozen=True)
class Attribute:
    """A contact attribute: its category and type, and the values a choice allows."""

    name: str
    category: str
    type: str
    choices: tuple[str, ...] = ()

    def fits(self, value: Any) -> bool:
        """Whether Brevo keeps this value; it drops others in silence."""
        match self.type:
            case "text":
                return isinstance(value, str)
            case "float":
                return isinstance(value, int | float) and not isinstance(value, bool)
            case "boolean":
                return isinstance(value, bool)
            case "date":
                return isinstance(value, str) and _is_date(value)
            case "category":
                return not self.choices or str(value) in self.choices
            case "multiple-choice":
                return isinstance(value, list) and all(item in self.choices for item in value)
            case _:
                return False


def stamp(moment: datetime) -> str:
    """A time as Brevo writes it: UTC, with milliseconds and Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def identifiers_of(body: dict[str, Any]) -> dict[Identifier, str]:
    """The identifiers a body gives, each as it is stored.  Raises BadRequestError."""
    attributes = body.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise BadRequestError(refused(400, "invalid_parameter", "attributes should be an object"))
    given: dict[Identifier, Any] = {
        "email": body.get("email") or attributes.get("EMAIL"),
        "EXT_ID": body.get("ext_id") or attributes.get("EXT_ID"),
        "SMS": attributes.get("SMS"),
    }
    found: dict[Identifier, str] = {}
    for which, value in given.items():
        if value:
            found[which] = canonical(which, value)
            if not found[which]:
                wrong = "Invalid phone number" if which == "SMS" else f"Invalid {which}"
                raise BadRequestError(refused(400, "invalid_parameter", wrong))
    return found


def canonical(which: Identifier, value: Any) -> str:
    """An identifier as it is stored; an empty text where it is none."""
    text = str(value).strip()
    match which:
        case "email":
            return text.lower() if _EMAIL.fullmatch(text) else ""
        case "SMS":
            phone = _PHONE.fullmatch(text)
            return phone[1] if phone else ""
        case "EXT_ID":
            return text


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
