"""From the items of a page to raw events: named, redacted, and otherwise as received.  Pure.

An event has the id that callback and Event Streams give it, its EV sid.  A callback without one was named by type,
resource and time, so that name is looked for as well.
https://www.twilio.com/docs/taskrouter/api/event
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from shared import redact
from shared.event import RawEvent

EVENTS = "/rest/taskrouter/events"
JSON = "application/json"

_EVENT_SID = re.compile(r"EV[0-9a-f]{32}")
_SID = re.compile(r"[A-Z]{2}[0-9a-f]{32}")
_TYPE = re.compile(r"[a-z][a-z0-9.-]{0,99}")


class Item(Struct, frozen=True):
    """One raw event, and every id under which it may have been heard."""

    event: RawEvent
    ids: tuple[str, ...]


class Unreadable(Struct, frozen=True):
    """What can be stored only as a dead letter: the bytes, redacted, its id, and why."""

    id: str
    body: bytes
    why: str


def read_events(
    raws: Iterable[msgspec.Raw], *, account_sid: str, keep_bodies: bool
) -> tuple[list[Item], list[Unreadable]]:
    """The items of a page of TaskRouter's Events, the earliest first; and those that are none."""
    items: list[Item] = []
    unreadable: list[Unreadable] = []
    for raw in raws:
        given = msgspec.json.decode(raw)
        clean = redact.value(given, keep_bodies=keep_bodies)
        body = bytes(raw) if clean is given else msgspec.json.encode(clean)
        why = _why_not(given)
        if why:
            digest = hashlib.sha256(body).hexdigest()[:32]
            unreadable.append(Unreadable(f"{EVENTS}/{digest}", body, why))
        else:
            items.append(_event(given, body, account_sid))
    return sorted(items, key=lambda item: (item.event.time_ms, item.event.id)), unreadable


def _why_not(given: Any) -> str:
    """Why this is no event; an empty text where it is one."""
    if not isinstance(given, dict):
        return "no JSON object"
    if not isinstance(given.get("event_type"), str) or not _TYPE.fullmatch(given["event_type"]):
        return "no event_type of TaskRouter's"
    if not isinstance(given.get("event_date_ms"), int):
        return "no event_date_ms"
    if not isinstance(given.get("resource_sid"), str) or not _SID.fullmatch(given["resource_sid"]):
        return "no resource_sid"
    return ""


def _event(given: dict[str, Any], body: bytes, account_sid: str) -> Item:
    data, sid = given.get("event_data"), given.get("sid")
    task = data.get("task_sid") if isinstance(data, dict) else None
    natural = f"{given['event_type']}/{given['resource_sid']}/{given['event_date_ms']}"
    ids = (sid, natural) if isinstance(sid, str) and _EVENT_SID.fullmatch(sid) else (natural,)
    return Item(
        RawEvent(
            id=ids[0],
            product="taskrouter",
            type=given["event_type"],
            source=EVENTS,
            subject=task if isinstance(task, str) and _SID.fullmatch(task) else given["resource_sid"],
            account_sid=account_sid,
            time_ms=given["event_date_ms"],
            content_type=JSON,
            body=body,
        ),
        ids,
    )
