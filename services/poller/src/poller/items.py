"""From the items of a page to raw events: named, redacted, and otherwise as received.  Pure.

An event has the id that callback and Event Streams give it, its EV sid.  A callback without one was named by type,
resource and time, so that name is looked for as well.
https://www.twilio.com/docs/taskrouter/api/event
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from shared import redact
from shared.body import NOT_JSON
from shared.event import RawEvent, epoch_ms

EVENTS = "/rest/taskrouter/events"
CONVERSATIONS = "/rest/conversations"
PARTICIPANTS = "/rest/conversations/participants"
MESSAGES = "/rest/conversations/messages"
SNAPSHOTS = "/rest/snapshots"
CHANNELS = {"web": "webchat", "chat": "webchat"}  # the rest are called what Twilio calls them
JSON = "application/json"
MS_MAX = 253_402_300_800_000  # the year 10000, which no date has a name for

_EVENT_SID = re.compile(r"EV[0-9a-f]{32}")
_SID = re.compile(r"[A-Z]{2}[0-9a-f]{32}")
_TYPE = re.compile(r"[a-z][a-z0-9.-]{0,99}")


class Item(Struct, frozen=True):
    """One raw event, and every id under which it may have been heard."""

    event: RawEvent
    ids: tuple[str, ...]
    channel: str = ""  # as in the connector file; empty where it says none


class Unreadable(Struct, frozen=True):
    """What can be stored only as a dead letter: the bytes, redacted, its id, and why."""

    id: str
    source: str
    body: bytes
    why: str


_Read = tuple[list[Item], list[Unreadable]]


def read_events(raws: Iterable[msgspec.Raw], *, account_sid: str, keep_bodies: bool) -> _Read:
    """The items of a page of TaskRouter's Events, the earliest first; and those that are none."""
    return _read(raws, EVENTS, partial(_event, account_sid=account_sid), keep_bodies=keep_bodies)


def read_conversations(raws: Iterable[msgspec.Raw], *, account_sid: str, keep_bodies: bool) -> _Read:
    """Of each conversation that it was made, and where it is closed, that it was; and what is none."""
    return _read(
        raws, CONVERSATIONS, partial(_conversation, account_sid=account_sid), keep_bodies=keep_bodies
    )


def changed_ms(conversation: bytes) -> int:
    """When a conversation changed last; 0 where it does not say."""
    given = msgspec.json.decode(conversation)
    try:
        return _ms(given, "date_updated")
    except _Bad:
        return 0


def read_participants(raws: Iterable[msgspec.Raw], *, account_sid: str) -> list[Item]:
    """Who takes part in a conversation; what is no participant is passed over."""
    read = partial(_of_conversation, type_="participant.added", source=PARTICIPANTS, account_sid=account_sid)
    return _read(raws, PARTICIPANTS, read, keep_bodies=False)[0]


def read_messages(raws: Iterable[msgspec.Raw], *, account_sid: str, keep_bodies: bool) -> _Read:
    """What was said in a conversation; without its words unless `keep_bodies`."""
    read = partial(_of_conversation, type_="message.added", source=MESSAGES, account_sid=account_sid)
    return _read(raws, MESSAGES, read, keep_bodies=keep_bodies)


def read_snapshots(
    raws: Iterable[msgspec.Raw], *, type_: str, product: str, account_sid: str, keep_bodies: bool
) -> _Read:
    """Things as they are now: another raw event each time Twilio changed one."""
    read = partial(_snapshot, type_=type_, product=product, account_sid=account_sid)
    return _read(raws, f"{SNAPSHOTS}/{type_}", read, keep_bodies=keep_bodies)


def measured(given: dict[str, Any], *, type_: str, subject: str, account_sid: str, at_ms: int) -> Item:
    """Statistics of something up to a moment."""
    event = RawEvent(
        id=f"{type_}:{subject}:{at_ms}", product="taskrouter", type=type_, source=f"{SNAPSHOTS}/{type_}",
        subject=subject, account_sid=account_sid, time_ms=at_ms, content_type=JSON, body=msgspec.json.encode(given),
    )  # fmt: skip
    return Item(event, (event.id,))


class _Bad(Exception):  # noqa: N818 - a reason, caught in this module
    """Why an item cannot be read; names a place, never a value."""


def _read(
    raws: Iterable[msgspec.Raw],
    source: str,
    one: Callable[[dict[str, Any], bytes], list[Item]],
    *,
    keep_bodies: bool,
) -> _Read:
    items: list[Item] = []
    unreadable: list[Unreadable] = []
    for raw in raws:
        try:
            given = msgspec.json.decode(raw)
        except NOT_JSON as error:
            body = redact.cards(bytes(raw).decode(errors="replace")).encode()
            unreadable.append(_unreadable(source, body, f"no JSON: {type(error).__name__}"))
            continue
        clean = redact.value(given, keep_bodies=keep_bodies)
        body = bytes(raw) if clean is given else msgspec.json.encode(clean)
        try:
            items += one(_object(given), body)
        except _Bad as error:
            unreadable.append(_unreadable(source, body, str(error)))
    return sorted(items, key=lambda item: (item.event.time_ms, item.event.id)), unreadable


def _unreadable(source: str, body: bytes, why: str) -> Unreadable:
    return Unreadable(f"{source}/{hashlib.sha256(body).hexdigest()[:32]}", source, body, why)


def refused(source: str, conversation: str, why: str) -> Unreadable:
    """A conversation of which Twilio refuses what is asked for; it is asked again with the next backfill."""
    return Unreadable(f"{source}/{conversation}", source, conversation.encode(), f"{conversation}: {why}")


def _event(given: dict[str, Any], body: bytes, *, account_sid: str) -> list[Item]:
    type_, time_ms, resource = (
        given.get("event_type"),
        given.get("event_date_ms"),
        _sid(given, "resource_sid"),
    )
    if not isinstance(type_, str) or not _TYPE.fullmatch(type_):
        raise _Bad("no event_type of TaskRouter's")
    if not isinstance(time_ms, int) or not 0 < time_ms < MS_MAX:
        raise _Bad("no event_date_ms")
    data = given.get("event_data")
    data = data if isinstance(data, dict) else {}
    sid, natural = given.get("sid"), f"{type_}/{resource}/{time_ms}"
    ids = (sid, natural) if isinstance(sid, str) and _EVENT_SID.fullmatch(sid) else (natural,)
    task = data.get("task_sid")
    subject = task if isinstance(task, str) and _SID.fullmatch(task) else resource
    event = RawEvent(
        id=ids[0], product="taskrouter", type=type_, source=EVENTS, subject=subject, account_sid=account_sid,
        time_ms=time_ms, content_type=JSON, body=body,
    )  # fmt: skip
    return [Item(event, ids, _task_channel(data))]


def _task_channel(data: dict[str, Any]) -> str:
    """What the attributes say, else the task channel."""
    try:
        attributes = msgspec.json.decode(data.get("task_attributes") or "{}")
    except (msgspec.MsgspecError, TypeError, RecursionError):
        attributes = {}
    said = attributes.get("channelType") if isinstance(attributes, dict) else None
    said = said or data.get("task_channel_unique_name")
    return CHANNELS.get(said, said) if isinstance(said, str) else ""


def _conversation(given: dict[str, Any], body: bytes, *, account_sid: str) -> list[Item]:
    """Closing has no event of its own over REST: `conversation.closed` is ours, at the last change."""
    sid = _sid(given, "sid")
    added = RawEvent(
        id=f"conversation.added:{sid}", product="conversations", type="conversation.added", source=CONVERSATIONS,
        subject=sid, account_sid=account_sid, time_ms=_ms(given, "date_created"), content_type=JSON, body=body,
    )  # fmt: skip
    items = [Item(added, (added.id,))]
    if given.get("state") == "closed":
        id_ = f"conversation.closed:{sid}"
        closed = msgspec.structs.replace(
            added, id=id_, type="conversation.closed", time_ms=_ms(given, "date_updated")
        )
        items.append(Item(closed, (id_,)))
    return items


def _of_conversation(
    given: dict[str, Any], body: bytes, *, type_: str, source: str, account_sid: str
) -> list[Item]:
    id_ = f"{type_}:{_sid(given, 'sid')}"
    binding = given.get("messaging_binding")
    said = binding.get("type") if isinstance(binding, dict) else ""
    event = RawEvent(
        id=id_, product="conversations", type=type_, source=source, subject=_sid(given, "conversation_sid"),
        account_sid=account_sid, time_ms=_ms(given, "date_created"), content_type=JSON, body=body,
    )  # fmt: skip
    return [Item(event, (id_,), CHANNELS.get(said, said) if isinstance(said, str) else "")]


def _snapshot(
    given: dict[str, Any], body: bytes, *, type_: str, product: str, account_sid: str
) -> list[Item]:
    sid = _sid(given, "sid")
    dates = [
        _ms(given, name)
        for name in ("date_created", "date_updated", "date_status_changed")
        if given.get(name)
    ]
    if not dates:
        raise _Bad("no date")
    event = RawEvent(
        id=f"{type_}:{sid}:{'/'.join(map(str, sorted(dates)[-2:]))}", product=product, type=type_,
        source=f"{SNAPSHOTS}/{type_}", subject=sid, account_sid=account_sid, time_ms=max(dates), content_type=JSON,
        body=body,
    )  # fmt: skip
    return [Item(event, (event.id,))]


def _object(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise _Bad("no JSON object")
    return given


def _sid(given: dict[str, Any], name: str) -> str:
    sid = given.get(name)
    if not isinstance(sid, str) or not _SID.fullmatch(sid):
        raise _Bad(f"no {name}")
    return sid


def _ms(given: dict[str, Any], name: str) -> int:
    try:
        ms = epoch_ms(given[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        ms = 0
    if ms <= 0:
        raise _Bad(f"no {name}")
    return ms
