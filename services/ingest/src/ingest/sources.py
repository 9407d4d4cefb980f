"""From one request to raw events: what each route sends, split, named and redacted.  Pure.

The envelope is read from the body; the body itself stays as received, but for what redaction takes out.
Natural keys make callback and Event Streams agree: a message is its MessageSid, however we hear of it.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from msgspec import Meta, Struct
from yarl import query_to_pairs

from shared import redact
from shared.body import FIELDS_MAX
from shared.event import RawEvent, epoch_ms
from shared.topology import MESSAGE_BYTES_MAX

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

ELEMENTS_MAX = 10_000  # of an Event Streams array; Twilio batches far fewer, and 4 MiB hold no more events
EVENT_BYTES_MAX = MESSAGE_BYTES_MAX - 64 * 1024  # redaction can make a body larger; headers need room

# Checked while it is read, because two million 1s in 4 MiB would be 130 MB of objects first.
_Elements = Annotated[list[msgspec.Raw], Meta(max_length=ELEMENTS_MAX)]

DAY_MS = 24 * 3600 * 1000
TIME_MIN_MS, TIME_MAX_MS = 946_684_800_000, 4_102_444_800_000  # 2000 to 2100; another time is none

_EVENT_SID = re.compile(r"EV[0-9a-f]{32}")
_ACCOUNT_SID = re.compile(r"AC[0-9a-f]{32}")
_BODY_IN_FORM = re.compile(r"((?:^|[&?])(?:Body|MessageBody|MessageSubject)=)[^&]+")
_TOKEN_IN_TEXT = re.compile(r"(\btoken\"?\s*[=:]\s*\"?)[^\"&\s]+", re.IGNORECASE)
_TYPE = re.compile(r"[a-z][a-z0-9.-]{0,99}")
_NAME = re.compile(r"[\w.:/-]{1,64}", re.ASCII)  # a sid, or what a project has in its place; never a mail


class Request(Struct, frozen=True):
    """A request whose sender is known to be right."""

    path: str
    body: bytes
    heard_ms: int  # stands in where a body carries no time
    account_sid: str  # stands in where a body carries none
    keep_bodies: bool


class Unreadable(Struct, frozen=True):
    """What can be stored only as a dead letter: the bytes, redacted, and why."""

    body: bytes
    why: str


class Read(Struct, frozen=True):
    """What a request holds."""

    events: tuple[RawEvent, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    ignored: int = 0  # test events, pre-events, and products that concern no contact centre


class _Bad(Exception):  # noqa: N818 - a reason, caught in this module
    """Why a body cannot be read; names a place, never a value."""


_ERRORS = (_Bad, ValueError, ArithmeticError, RecursionError, msgspec.MsgspecError)  # that a body can cause


@lru_cache(maxsize=1)  # a body is verified, and then read
def form(body: bytes) -> Sequence[tuple[str, str]]:
    """A form's decoded parameters, blank and repeated ones too.  Raises ValueError for more than FIELDS_MAX."""
    # As parse_qsl, 4 times as fast.
    return tuple(query_to_pairs(body.decode(errors="replace"), max_fields=FIELDS_MAX))


def read(request: Request) -> Read:
    """What the request holds.  Never raises: what cannot be read is in `unreadable`."""
    try:
        return _READERS[request.path](request)
    except _ERRORS as error:
        why = (
            str(error) if isinstance(error, _Bad) else f"not what this route is sent: {type(error).__name__}"
        )
        return Read(unreadable=(_unreadable(request.body, why, keep_bodies=request.keep_bodies),))


def _unreadable(body: bytes, why: str, *, keep_bodies: bool) -> Unreadable:
    """Redacted as what it looks like: JSON, a form, or text; cut where that grew beyond what a message may be."""
    try:
        given = msgspec.json.decode(body)
        clean = redact.value(_without_token(given), keep_bodies=keep_bodies)
        return Unreadable((body if clean is given else msgspec.json.encode(clean))[:EVENT_BYTES_MAX], why)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        text = body.decode(errors="surrogateescape")
    if not keep_bodies:
        text = _BODY_IN_FORM.sub(rf"\g<1>{redact.BODY}", text)
    text = _TOKEN_IN_TEXT.sub(rf"\g<1>{redact.BODY}", text)
    return Unreadable(redact.cards(text).encode(errors="surrogateescape")[:EVENT_BYTES_MAX], why)


def _without_token(given: Any) -> Any:
    """An object without the Flex plugin's token, which opens the account to whoever reads it; the same where it has none."""
    if isinstance(given, dict) and any(name.lower() == "token" for name in given):
        return {name: value for name, value in given.items() if name.lower() != "token"}
    return given


# -- forms --------------------------------------------------------------------------------------------------


def _fields(request: Request) -> tuple[dict[str, Any], bytes, str]:
    """The fields of a form or a JSON object, and the body to store with its content type."""
    if request.body.lstrip()[:1] == b"{":
        given = msgspec.json.decode(request.body, type=dict[str, Any])
        clean = redact.value(given, keep_bodies=request.keep_bodies)
        return given, request.body if clean is given else msgspec.json.encode(clean), JSON
    pairs = form(request.body)
    clean_pairs = redact.pairs(pairs, keep_bodies=request.keep_bodies)
    return dict(pairs), request.body if clean_pairs is pairs else _encode(clean_pairs), FORM


def _encode(pairs: Sequence[tuple[str, str]]) -> bytes:
    return urlencode(pairs).encode()


def _taskrouter(request: Request) -> Read:
    """https://www.twilio.com/docs/taskrouter/api/event/reference#event-callbacks"""
    fields, body, content_type = _fields(request)
    type_, ms = fields.get("EventType", ""), str(fields.get("TimestampMs") or "")
    if not isinstance(type_, str) or not _TYPE.fullmatch(type_):
        raise _Bad("no EventType of TaskRouter's")
    time_ms = (
        int(ms) if ms.isdigit() and len(ms) < 16 else _seconds(fields.get("Timestamp")) or request.heard_ms
    )
    resource, sid = _text(fields, "ResourceSid"), _text(fields, "Sid")
    event = _event(
        request, fields, body, content_type,
        id_=sid if _EVENT_SID.fullmatch(sid) else f"{type_}/{resource}/{time_ms}",
        product="taskrouter", type_=type_, subject=_text(fields, "TaskSid") or resource or type_, time_ms=time_ms,
    )  # fmt: skip
    return Read(events=(event,))


_CONVERSATION_NOUN = {
    "Conversation": "conversation", "ConversationState": "conversation-state", "Message": "message",
    "Participant": "participant", "User": "user", "Delivery": "delivery",
}  # fmt: skip
_CONVERSATION = re.compile(
    r"on(Conversation|ConversationState|Message|Participant|User|Delivery)(Added|Updated|Removed)"
)
_BEFORE = re.compile(r"on(Conversation|ConversationState|Message|Participant|User)(Add|Update|Remove)")


def _conversations(request: Request) -> Read:
    """https://www.twilio.com/docs/conversations/conversations-webhooks"""
    fields, body, content_type = _fields(request)
    name = _text(fields, "EventType")
    if _BEFORE.fullmatch(name):
        return Read(ignored=1)  # Twilio waits for our word; a 200 without one lets it go on
    match = _CONVERSATION.fullmatch(name)
    if not match:
        raise _Bad("no EventType of Conversations'")
    type_ = f"{_CONVERSATION_NOUN[match[1]]}.{match[2].lower()}"
    return Read(
        events=(_conversation(request, fields, body, content_type, type_=type_, else_ms=request.heard_ms),)
    )


def _conversation(
    request: Request, fields: Mapping[str, Any], body: bytes, content_type: str, *, type_: str, else_ms: int
) -> RawEvent:
    """One thing that happened in a conversation, from callback or stream: the same id either way."""
    noun = type_.partition(".")[0]
    names = {"message": "MessageSid", "participant": "ParticipantSid", "user": "UserSid"}
    subject = _text(fields, "ConversationSid") or _text(fields, "UserSid")
    sid = _text(fields, names.get(noun, "ConversationSid")) or subject
    if not subject:
        raise _Bad("no ConversationSid")
    dates = ("StateUpdated",) if noun == "conversation-state" else ("DateUpdated", "DateCreated")
    if type_.endswith(".added"):
        dates = ("DateCreated", "DateUpdated")
    time_ms = next((ms for name in dates if (ms := _iso_ms(fields.get(name)))), 0)
    key = f"{type_}:{sid}"
    if noun == "conversation-state":
        key += f":{_text(fields, 'StateTo')}:{time_ms}"
    elif type_.endswith(".updated"):
        key += f":{time_ms}" if time_ms else f":{digest(body)}"
    return _event(
        request, fields, body, content_type,
        id_=key, product="conversations", type_=type_, subject=subject, time_ms=time_ms or else_ms,
    )  # fmt: skip


_INTERACTION = {
    "onInteractionCreated": "interaction.created",
    "onChannelCreated": "interaction-channel.created",
    "onChannelCreateFailed": "interaction-channel.create-failed",
    "onChannelStatusUpdated": "interaction-channel.status-updated",
    "onParticipantJoined": "interaction-participant.joined",
    "onParticipantLeft": "interaction-participant.left",
    "onParticipantUpdated": "interaction-participant.updated",
}


def _interactions(request: Request) -> Read:
    """Flex Interactions; form or JSON, as nobody documents which.  They carry no time: ours stands in."""
    fields, body, content_type = _fields(request)
    type_ = _INTERACTION.get(_text(fields, "EventType"))
    if type_ is None:
        raise _Bad("no EventType of Interactions'")
    event = _event(
        request, fields, body, content_type,
        id_=f"{type_}:{digest(body)}", product="flex", type_=type_,
        subject=_text(fields, "InteractionSid") or _text(fields, "MediaChannelSid") or type_, time_ms=request.heard_ms,
    )  # fmt: skip
    return Read(events=(event,))


def _survey(request: Request) -> Read:
    """Ours: {score, survey?, comment?, task_sid|conversation_sid|call_sid|email|phone, id?, time?}, form or JSON.

    Without an `id` a survey's id is its name and the interaction it is about, so that one sent twice is one; about
    a person it is the day's, for they may be asked again.
    """
    fields, body, content_type = _fields(request)
    score = next(
        (fields[name] for name in ("score", "csat_score", "rating") if fields.get(name) not in (None, "")),
        None,
    )
    try:
        in_range = score is not None and not isinstance(score, bool) and 0 <= float(score) <= 100
    except (TypeError, ValueError):
        in_range = False
    if not in_range:
        raise _Bad("no score from 0 to 100")
    names = ("task_sid", "TaskSid", "conversation_sid", "ConversationSid", "call_sid", "CallSid")
    subject = next((sid for name in names if _NAME.fullmatch(sid := _text(fields, name))), "")
    time_ms = _iso_ms(fields.get("time")) or request.heard_ms
    # One person, however the mail or phone is written.
    email, phone = _text(fields, "email").lower(), re.sub(r"\D", "", _text(fields, "phone"))
    if not subject and (who := email or phone):
        subject = digest(f"{who} {time_ms // DAY_MS}".encode())
    if not subject:
        raise _Bad("a survey of nobody: give task_sid, conversation_sid, call_sid, email or phone")
    event = _event(
        request, fields, body, content_type,
        id_=f"survey:{_text(fields, 'id') or '/'.join((_text(fields, 'survey') or 'csat', subject))}",
        product="survey", type_="survey.completed", subject=subject,
        time_ms=time_ms,
    )  # fmt: skip
    return Read(events=(event,))


def _task_complete(request: Request) -> Read:
    """Our Flex plugin, or handle_event of our Python client: {task_sid, customer_email?, channel?, duration?, queue_name?}."""
    given = _without_token(msgspec.json.decode(request.body, type=dict[str, Any]))
    task = given.get("task")
    who, sid = (
        ("flex-plugin", _text(task, "taskSid"))
        if isinstance(task, dict)
        else ("client", _text(given, "task_sid"))
    )
    if not sid:
        raise _Bad("no task.taskSid, and no task_sid")
    body = msgspec.json.encode(redact.value(given, keep_bodies=request.keep_bodies))
    event = _event(
        request, given, body, JSON,
        id_=f"{who}/task.completed/{sid}", product="flex", type_="task.completed", subject=sid,
        time_ms=_iso_ms(given.get("occurredAt")) or request.heard_ms,
    )  # fmt: skip
    return Read(events=(event,))


# -- Event Streams ------------------------------------------------------------------------------------------


def _event_streams(request: Request) -> Read:
    """An array of CloudEvents, or one; each is stored as its own bytes.  https://www.twilio.com/docs/events"""
    raws = (
        msgspec.json.decode(request.body, type=_Elements)
        if request.body.lstrip()[:1] == b"["
        else [msgspec.Raw(request.body)]
    )
    events: list[RawEvent] = []
    unreadable: list[Unreadable] = []
    ignored = 0
    for raw in raws:
        try:
            event = _element(request, bytes(raw))
        except _ERRORS as error:
            why = str(error) if isinstance(error, _Bad) else f"not a CloudEvent: {type(error).__name__}"
            unreadable.append(_unreadable(bytes(raw), why, keep_bodies=request.keep_bodies))
            continue
        if event is None:
            ignored += 1
        else:
            events.append(event)
    return Read(tuple(events), tuple(unreadable), ignored)


def _element(request: Request, raw: bytes) -> RawEvent | None:
    cloud = msgspec.json.decode(raw, type=dict[str, Any])
    type_ = _text(cloud, "type")
    if not type_:
        raise _Bad("a CloudEvent without a type")
    _, _, rest = type_.partition("com.twilio.")
    product, _, kind = rest.partition(".")
    if product not in ("taskrouter", "conversations"):
        return None  # a test event, voice insights, Studio: none of a customer's story
    if not _TYPE.fullmatch(kind):
        raise _Bad("a CloudEvent of no type we can name")
    data = _object(cloud.get("data"))
    clean = redact.value(cloud, keep_bodies=request.keep_bodies)
    body = raw if clean is cloud else msgspec.json.encode(clean)
    sent_ms = _iso_ms(cloud.get("time")) or request.heard_ms
    if product == "conversations":
        return _conversation(request, data, body, JSON, type_=kind, else_ms=sent_ms)
    payload = _object(data.get("payload"))
    sids = (_text(payload, "sid"), _text(data, "sid"), _text(cloud, "id"))
    time_ms = _iso_ms(payload.get("timestamp")) or _iso_ms(data.get("timestamp")) or sent_ms
    resource = _text(payload, "resource_sid")
    return _event(
        request, payload or data, body, JSON,
        id_=next((sid for sid in sids if _EVENT_SID.fullmatch(sid)), f"{kind}/{resource}/{time_ms}"),
        product="taskrouter", type_=kind, subject=_text(payload, "task_sid") or resource or kind, time_ms=time_ms,
    )  # fmt: skip


# -- what all share -----------------------------------------------------------------------------------------


def _event(
    request: Request, fields: Mapping[str, Any], body: bytes, content_type: str,
    *, id_: str, product: str, type_: str, subject: str, time_ms: int,
) -> RawEvent:  # fmt: skip
    if len(body) > EVENT_BYTES_MAX:
        raise _Bad(f"more than {EVENT_BYTES_MAX} bytes once redacted")
    account = _text(fields, "AccountSid") or _text(fields, "account_sid")
    return RawEvent(
        id=_header(id_),
        product=product,
        type=type_,
        source=request.path,
        subject=_header(subject),
        account_sid=account if _ACCOUNT_SID.fullmatch(account) else request.account_sid,
        time_ms=time_ms if TIME_MIN_MS <= time_ms < TIME_MAX_MS else request.heard_ms,
        content_type=content_type,
        body=body,
    )


def _header(text: str) -> str:
    """As a header can carry it: one line of plain ASCII, at most 200 characters; else its digest."""
    return (
        text
        if text.isascii() and text.isprintable() and len(text) <= 200 and " " not in text
        else digest(text.encode())
    )


def digest(body: bytes) -> str:
    """Names bytes by what they hold."""
    return hashlib.sha256(body).hexdigest()[:32]


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value.strip() if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _object(value: object) -> dict[str, Any]:
    """An object, or one given as JSON text, as Kinesis was seen to; {} for anything else."""
    if isinstance(value, str) and value:
        value = msgspec.json.decode(value)
    return value if isinstance(value, dict) else {}


def _iso_ms(value: object) -> int:
    """RFC 3339 as epoch ms; 0 for anything else."""
    try:
        return epoch_ms(value) if isinstance(value, str) and value else 0
    except (ValueError, OverflowError):
        return 0


def _seconds(value: object) -> int:
    return int(value) * 1000 if isinstance(value, str) and value.isdigit() and len(value) < 12 else 0


_READERS: dict[str, Callable[[Request], Read]] = {
    "/webhooks/taskrouter": _taskrouter,
    "/webhooks/event-streams": _event_streams,
    "/webhooks/conversations": _conversations,
    "/webhooks/interactions": _interactions,
    "/webhooks/flex/task-complete": _task_complete,
    "/webhooks/survey": _survey,
}

ROUTES = tuple(_READERS)
