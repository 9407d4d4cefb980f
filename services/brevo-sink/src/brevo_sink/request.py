"""From commands to what Brevo is sent.  Pure.  https://developers.brevo.com/reference/createcontact"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from shared.command import ContactUpsert, EventTrack
from shared.plain import plain

BATCH_MAX = 200  # events in one call: https://developers.brevo.com/docs/event-endpoints
BATCH_BYTES_MAX = 480 * 1024  # of 512 KB; the rest is for what the client adds
EVENT_BYTES_MAX = 48 * 1024  # of 50 KB a single event's properties may take
NAME_BYTES_MAX = 255  # of an ext_id; ours have 29
NAME_MAX = 255  # characters of an event's name, and of a property's
CUT = "…"

Property = str | int | float | bool

_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_MAX}}}")
_UNNAMED = re.compile(r"[^A-Za-z0-9_-]")

IDEMPOTENCY_KEY = (
    "idempotency_key"  # in event_properties: Brevo has none of its own, so a read-back looks for this
)


def contact(
    command: ContactUpsert, name: str, without: Collection[str] = (), *, update: bool = True
) -> dict[str, Any]:
    """The body of POST /contacts: safe to repeat.  Without `update` it is refused where the contact exists.

    `name` is its ext_id at Brevo, which is another where somebody else named it or it was renamed.
    `without` names identifiers that belong to another contact ("email", "SMS") and stay out.  Never forceMerge,
    which deletes a contact.  Lists go along, because adding to one a second time is then no error.
    """
    body: dict[str, Any] = {
        "ext_id": name,
        "attributes": {name: value for name, value in command.attributes.items() if name not in without},
        "updateEnabled": update,
    }
    if command.email and "email" not in without:
        body["email"] = command.email
    if command.list_ids:
        body["listIds"] = list(command.list_ids)
    return body


def fingerprint(command: ContactUpsert, without: Collection[str] = ()) -> str:
    """Tells whether a contact's email and phone are others now, and which they are to nobody: 32 bits of a hash each."""
    email = "" if "email" in without else command.email
    phone = "" if "SMS" in without else command.attributes.get("SMS")
    return f"{_digits(email)}.{_digits(phone)}"


def same_email(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same email."""
    return one.partition(".")[0] == other.partition(".")[0] != ""


def _digits(identifier: object) -> str:
    return hashlib.sha256(str(identifier).encode()).hexdigest()[:8] if identifier else ""


def event(command: EventTrack, name: str) -> dict[str, Any]:
    """One element of POST /events/batch.

    Named by ext_id only: a contact id outranks it, and points nowhere after a merge.  Never contact_properties:
    an old event would roll the contact's attributes back.
    """
    return {
        "event_name": command.name,
        "event_date": command.time,
        "identifiers": {"ext_id": name},
        "event_properties": {**_fit(command.properties), IDEMPOTENCY_KEY: command.id},
    }


def unfit(command: EventTrack) -> str:
    """Why Brevo can never take this event; an empty text where it can.  https://developers.brevo.com/docs/event-endpoints"""
    if not _NAME.fullmatch(command.name):
        return f"event_name is no name at Brevo: letters, digits, - and _, at most {NAME_MAX}"
    try:
        datetime.fromisoformat(command.time)
    except ValueError:
        return "event_date is no time"
    return ""


def _fit(properties: Mapping[str, Property]) -> dict[str, str | int]:
    """The properties as the batch schema knows them, the longest text cut until they fit."""
    kept = {_UNNAMED.sub("_", name)[:NAME_MAX] or "_": plain(value) for name, value in properties.items()}
    while len(msgspec.json.encode(kept)) > EVENT_BYTES_MAX:
        longest = max(kept, key=lambda name: len(str(kept[name])))
        text = str(kept[longest])
        if len(text) <= len(CUT):  # too many rather than too long
            del kept[longest]
        else:
            kept[longest] = text[: len(text) // 2] + CUT
    return kept


def batches(commands: Iterable[EventTrack]) -> Iterator[list[EventTrack]]:
    """The commands in as few calls as Brevo's limits allow, in order."""
    batch: list[EventTrack] = []
    size = 0
    for command in commands:
        length = len(msgspec.json.encode(event(command, ""))) + NAME_BYTES_MAX + 1
        if batch and (len(batch) == BATCH_MAX or size + length > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(command)
        size += length
    if batch:
        yield batch
