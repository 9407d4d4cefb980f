"""A customer, and what Brevo's contact shall say of them.  Pure."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from mapper.identity import Known, shared_id
from mapper.interaction import Dated, Interaction, keep_latest
from shared.command import Value
from shared.config import AttributeType, Config
from shared.plain import plain, whole


class Customer(Struct, omit_defaults=True, gc=False):
    """One person, as far as we know; whose the identifiers are stands with them."""

    id: str  # Brevo's ext_id
    fields: dict[str, Dated] = {}  # mapped source → the latest value over all interactions
    told: str = ""  # hash of what Brevo was last told; an empty text if nothing
    mailed: bool = False  # whether Brevo was told an email


class Aggregates(Struct, kw_only=True):
    """Over the customer's interactions in enabled channels."""

    per_channel: dict[str, tuple[int, int]] = {}  # channel → how many, and the latest start (ms)
    total: int = 0  # handled or abandoned
    abandoned: int = 0
    open_tasks: int = 0
    wait_ms: tuple[int, int] = (0, 0)  # sum, count; of handled ones
    handle_ms: tuple[int, int] = (0, 0)
    first_ms: int = 0
    last_ms: int = 0
    score: float | None = None  # of the latest survey


class Contact(Struct, frozen=True):
    """What Brevo shall hold."""

    email: str | None
    attributes: dict[str, Value]
    list_ids: tuple[int, ...]

    @property
    def hash(self) -> str:
        """Equal contacts have equal hashes."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:16]


def learn(customer: Customer, interaction: Interaction) -> None:
    """Take over what an interaction says of its customer.  Changes `customer` only; idempotent."""
    for source, said in interaction.fields.items():
        keep_latest(customer.fields, source, said)


def contact(
    customer: Customer, aggregates: Aggregates, known: Mapping[str, Known], config: Config
) -> Contact:
    """What Brevo shall hold of the customer.  Unknown values are left out: an attribute is never cleared."""
    flex = config.flex
    computed = _computed(aggregates, ZoneInfo(flex.time_zone))
    attributes: dict[str, Value] = {}
    email: str | None = None
    for source, field in config.fields.items():
        if source == "attributes.email":
            email = _latest(customer.id, "email:", known) or None
        elif source == "attributes.phone":
            if phone := _latest(customer.id, "phone:", known):
                attributes[field.attribute] = phone
        elif flex.sync.customers:
            said = customer.fields.get(source)
            value = computed.get(source, said.value if said else None)
            if (fitting := fit(value, field.type)) is not None:
                attributes[field.attribute] = fitting
    lists = [
        flex.lists.support_contacts,
        flex.lists.csat_respondents if aggregates.score is not None else None,
    ]
    chosen = dict.fromkeys(id_ for id_ in lists if id_ is not None)  # each once, where both are one list
    return Contact(email, attributes, tuple(chosen) if flex.sync.customers else ())


def _latest(customer: str, kind: str, known: Mapping[str, Known]) -> str:
    """The identifier of a kind last seen, of those that are the customer's alone."""
    theirs = (
        (one.seen.last_ms, one.seen.last_id, key)
        for key, one in known.items()
        if one.customer == customer and key.startswith(kind) and customer != shared_id(key)
    )
    return max(theirs, default=(0, "", kind))[2].removeprefix(kind)


def _computed(aggregates: Aggregates, zone: ZoneInfo) -> dict[str, Any]:
    """The aggregates, by their names in a field mapping."""

    def date(ms: int) -> str | None:
        return datetime.fromtimestamp(ms / 1000, zone).date().isoformat() if ms else None

    def mean_seconds(ms: tuple[int, int]) -> int | None:
        total, count = ms
        return (total + 500 * count) // (1000 * count) if count else None  # whole seconds, half up

    preferred = max(aggregates.per_channel.items(), key=lambda item: (*item[1], item[0]), default=None)
    return {
        "first_contact_date": date(aggregates.first_ms),
        "last_conversation_date": date(aggregates.last_ms),
        "total_conversations": aggregates.total,
        "abandoned_conversations": aggregates.abandoned,
        "open_tasks": aggregates.open_tasks,
        "avg_wait_time": mean_seconds(aggregates.wait_ms),
        "avg_handle_time": mean_seconds(aggregates.handle_ms),
        "last_csat_score": aggregates.score,
        "preferred_channel": preferred[0] if preferred else None,
    }


def fit(value: Any, type_: AttributeType) -> Value | None:
    """A value as an attribute of this type takes it; None where it cannot: Brevo drops such values in silence."""
    if value is None:
        return None
    match type_:
        case "text":
            return str(plain(value))
        case "float":
            return _number(value)
        case "boolean":
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
                str(value).lower()
            )
        case "date":
            try:
                return datetime.fromisoformat(str(value)).date().isoformat()
            except ValueError:
                return None


def _number(value: Any) -> int | float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if number != number or number in (float("inf"), float("-inf")):  # noqa: PLR0124 - only nan differs from itself
        return None
    return whole(number)
