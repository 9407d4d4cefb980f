"""Reading a raw event: from the shape it came in to what it says, whichever way we heard.  Pure.

One function for each source, tolerant of fields that are missing, unknown or null.  Whatever the shape, the
same thing that happened has the same `identity`, so a completion heard from callback, Event Streams, REST
and the Flex plugin is one event.  https://www.twilio.com/docs/taskrouter/api/event/reference
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from yarl import query_to_pairs

from mapper.attributes import LINK, as_number, identifiers, json_object, links, text
from mapper.said import REMEMBERED_MAX, SURVEY_MAX, TEXTS_MAX, Reading, Score, remembered, said, say
from shared.body import FIELDS_MAX, NOT_JSON
from shared.event import RawEvent

ONCE = frozenset({
    "task.created", "task.canceled", "task.wrapup", "task.completed", "task.deleted", "task.system-deleted",
    "reservation.created", "reservation.accepted", "reservation.rejected", "reservation.timeout",
    "reservation.canceled", "reservation.rescinded", "reservation.wrapup", "reservation.completed",
    "reservation.failed",
    "conversation.added", "conversation.closed", "conversation.removed", "message.added", "message.removed",
    "participant.added", "participant.removed", "interaction.created", "interaction-channel.created",
})  # fmt: skip
"""What can happen once to its entity; the rest can happen often, and its identity carries the ms."""

_SNAKE = (
    "task_sid", "task_attributes", "task_channel_unique_name", "task_queue_name", "task_canceled_reason",
    "task_completed_reason", "reason", "reservation_sid", "worker_sid",
)  # fmt: skip
_PASCAL = {"".join(part.capitalize() for part in name.split("_")): name for name in _SNAKE}


if TYPE_CHECKING:
    _Payload = Any
else:
    _Payload = msgspec.defstruct("_Payload", [(name, Any, None) for name in _SNAKE])


class _StreamData(Struct):
    payload: _Payload


class _StreamEvent(Struct):
    """What is read of TaskRouter's element of an Event Streams array; to skip the rest takes a third of the time."""

    data: _StreamData


_task_stream = msgspec.json.Decoder(_StreamEvent).decode


class UnreadableError(ValueError):
    """The body is not what its source sends.  The message names a place, never a value."""


class Heard(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What one raw event says about one interaction."""

    id: str  # the raw event's
    type: str  # the domain event type, as in an event_mapping
    identity: str  # "<entity sid>/<type>" or "<entity sid>/<type>/<ms>": one thing that happened
    time_ms: int
    task: str = ""  # task sid
    conversation: str = ""  # conversation sid
    links: tuple[str, ...] = ()  # sids and ids that name the same interaction
    thin: bool = False  # not TaskRouter's own account: knows less, and waits for it
    address: str = ""  # the customer's, where a participant's binding says so
    channel_type: str = ""  # attributes.channelType
    task_channel: str = ""  # unique name of the task channel
    binding: str = ""  # the channel as Conversations or an Interaction names it
    queue: str = ""
    duration_ms: int = 0  # as who called handle_event says
    agent: str = ""  # worker sid
    reason: str = ""
    closed: bool = False  # the conversation or the interaction's channel closed
    virtual: bool = False  # its task was made for a survey or a report
    outcome: str = ""  # as the agent noted it
    score: Score | None = None
    fields: Mapping[str, Any] = {}  # mapped source → value, where the task's attributes have one
    identifiers: Mapping[str, str] = {}  # "email" | "external" | "phone" → value


def read(event: RawEvent, reading: Reading) -> Heard | None:
    """What the event says; None for what concerns no customer (agents, queues, activities).

    Raises UnreadableError.
    """
    if event.source.startswith("/rest/snapshots/"):
        return None
    try:
        reader = _READERS[event.source]
    except KeyError:
        raise UnreadableError(f"no reader for the source {event.source}") from None
    return reader(event, reading)


def _task_event(event: RawEvent, fields: Mapping[str, Any], reading: Reading) -> Heard | None:
    """TaskRouter, from whichever of its three shapes, its fields in snake case."""
    task = text(fields, "task_sid")
    if not LINK.fullmatch(task):
        return None
    attributes = fields.get("task_attributes")
    told = said(attributes, reading) if isinstance(attributes, str) else say(json_object(attributes), reading)
    reservation = text(fields, "reservation_sid")
    entity = reservation if event.type.startswith("reservation.") and reservation else task
    return Heard(
        id=event.id,
        type=event.type,
        identity=_identity(entity, event.type, event.time_ms),
        time_ms=event.time_ms,
        task=task,
        conversation=told.conversation,
        links=tuple(dict.fromkeys((task, *told.links))),
        channel_type=told.channel_type,
        task_channel=text(fields, "task_channel_unique_name"),
        queue=text(fields, "task_queue_name"),
        agent=text(fields, "worker_sid"),
        reason=text(fields, "task_canceled_reason") or text(fields, "task_completed_reason") or text(fields, "reason"),
        virtual=told.virtual,
        outcome=told.outcome,
        score=told.score,
        fields=told.fields,
        identifiers=told.identifiers,
    )  # fmt: skip


def _taskrouter_callback(event: RawEvent, reading: Reading) -> Heard | None:
    if not _is_json(event.body):
        return _task_event(event, _wanted(_decoded(event.body)), reading)
    heard = _body_object(event.body)
    return _task_event(
        event, {_PASCAL[name]: value for name, value in heard.items() if name in _PASCAL}, reading
    )


def _wanted(form: str) -> dict[str, str]:
    """Of some forty fields the nine that are read, in snake case, so that the rest need not be decoded."""
    pairs = form.split("&")
    if len(pairs) > FIELDS_MAX:
        raise UnreadableError("not a form: too many fields")
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in _PASCAL:
            found[_PASCAL[name]] = _unquoted(value) if "%" in value or "+" in value else value
    return found


def _unquoted(value: str) -> str:
    """The events of a task repeat its attributes: decoded once, they are also one text for `said` to know again."""
    return (_decoded_value if len(value) <= REMEMBERED_MAX else _decoded_value.__wrapped__)(value)


def forget_texts() -> None:
    """Remember nothing of what was read: somebody is to be forgotten."""
    _decoded_value.cache_clear()
    remembered.cache_clear()


@lru_cache(maxsize=TEXTS_MAX)
def _decoded_value(value: str) -> str:
    return query_to_pairs(f"={value}")[0][1]


def _event_stream(event: RawEvent, reading: Reading) -> Heard | None:
    if event.product == "taskrouter":
        with suppress(*NOT_JSON):  # else it has another shape, or none: see below
            payload = _task_stream(event.body).data.payload
            return _task_event(event, msgspec.structs.asdict(payload), reading)
    data = _body_object(event.body).get("data")
    data = json_object(data)  # Kinesis was seen to deliver it as a JSON string
    if event.product == "taskrouter":
        return _task_event(event, json_object(data.get("payload")), reading)
    if event.product == "conversations":
        return _conversation_event(event, data, reading)
    raise UnreadableError(f"no Event Streams reader for the product {event.product}")


def _rest_event(event: RawEvent, reading: Reading) -> Heard | None:
    return _task_event(event, json_object(_body_object(event.body).get("event_data")), reading)


def _conversation_callback(event: RawEvent, reading: Reading) -> Heard | None:
    fields = _form_or_json(event)
    binding = {
        name.partition(".")[2]: value
        for name, value in fields.items()
        if name.startswith("MessagingBinding.")
    }
    binding = binding or json_object(fields.get("MessagingBinding"))
    return _conversation_event(event, {**fields, "MessagingBinding": binding}, reading)


def _rest_conversation(event: RawEvent, reading: Reading) -> Heard | None:
    fields = _body_object(event.body)
    heard = _conversation_event(
        event, {"ConversationSid": fields.get("sid"), "Attributes": fields.get("attributes")}, reading
    )
    return heard and msgspec.structs.replace(heard, closed=event.type == "conversation.closed")


def _rest_of_conversation(event: RawEvent, reading: Reading) -> Heard | None:
    """Or a message, whose sid is in the same place."""
    fields = _body_object(event.body)
    binding = json_object(fields.get("messaging_binding"))
    flat = {
        "ConversationSid": fields.get("conversation_sid"),
        "ParticipantSid": fields.get("sid"),
        "MessageSid": fields.get("sid"),
        "Attributes": fields.get("attributes"),
        "MessagingBinding": {"Address": binding.get("address"), "Type": binding.get("type")},
    }
    return _conversation_event(event, flat, reading)


def _conversation_event(event: RawEvent, fields: Mapping[str, Any], reading: Reading) -> Heard | None:
    """Conversations, from callback or stream: flat, in Pascal case, the binding as an object."""
    conversation = text(fields, "ConversationSid")
    if not LINK.fullmatch(conversation):
        return None
    binding = json_object(fields.get("MessagingBinding"))
    attributes = json_object(fields.get("Attributes"))
    # A conversation's attributes are not the task's: they identify, and fill no field.
    address = text(binding, "Address") or text(binding, "AuthorAddress")
    entity = conversation
    if event.type.startswith("message."):
        entity = text(fields, "MessageSid") or conversation
    elif event.type.startswith("participant."):
        entity = text(fields, "ParticipantSid") or conversation
    return Heard(
        id=event.id,
        type=event.type,
        identity=_identity(entity, event.type, event.time_ms),
        time_ms=event.time_ms,
        conversation=conversation,
        links=links(conversation),
        address=address,
        binding=text(binding, "Type").lower() or address.partition(":")[0] * (":" in address),
        closed=event.type == "conversation-state.updated" and text(fields, "StateTo") == "closed",
        identifiers=identifiers({**attributes, "customerAddress": address}, reading.own_numbers)
        if address or attributes
        else {},
    )


def _interaction_callback(event: RawEvent, reading: Reading) -> Heard | None:  # noqa: ARG001 - one shape for all readers
    fields = _form_or_json(event)
    interaction, media, task = (
        text(fields, name) for name in ("InteractionSid", "MediaChannelSid", "TaskSid")
    )
    conversation = media if media.startswith("CH") else ""
    if not (interaction or conversation or task):
        return None
    return Heard(
        id=event.id,
        type=event.type,
        identity=_identity(
            text(fields, "ChannelSid") or interaction or conversation, event.type, event.time_ms
        ),
        time_ms=event.time_ms,
        conversation=conversation,
        links=links(interaction, conversation, task),
        binding=text(fields, "MediaChannelType").lower(),
        closed=event.type == "interaction-channel.status-updated"
        and text(fields, "ChannelStatus") == "closed",
    )


def _task_complete(event: RawEvent, reading: Reading) -> Heard | None:
    """Our Flex plugin, or our client.  `taskSid` is the task; Flex's own `task.sid` is the reservation."""
    body = _body_object(event.body)
    if "task" not in body:
        return _told_by_client(event, body, reading)
    task = json_object(body.get("task"))
    heard = _task_event(
        event,
        {
            "task_sid": task.get("taskSid"),
            "task_attributes": task.get("attributes"),
            "task_channel_unique_name": task.get("taskChannelUniqueName"),
            "task_queue_name": task.get("queueName"),
            "worker_sid": json_object(body.get("worker")).get("sid"),
        },
        reading,
    )
    return heard and msgspec.structs.replace(heard, thin=True)


def _told_by_client(event: RawEvent, body: Mapping[str, Any], reading: Reading) -> Heard | None:
    """What somebody told with handle_event, in the words of docs/client.md."""
    task = text(body, "task_sid")
    if not LINK.fullmatch(task):
        return None
    seconds = as_number(body.get("duration"))
    return Heard(
        id=event.id,
        type=event.type,
        identity=_identity(task, event.type, event.time_ms),
        time_ms=event.time_ms,
        task=task,
        links=(task,),
        thin=True,
        binding=text(body, "channel").lower(),  # whatever TaskRouter says of the channel goes before this
        queue=text(body, "queue_name"),
        duration_ms=round(seconds * 1000) if seconds and seconds > 0 else 0,
        identifiers=identifiers({"email": text(body, "customer_email")}, reading.own_numbers),
    )


def _survey(event: RawEvent, reading: Reading) -> Heard | None:
    fields = _form_or_json(event)

    def first(*names: str) -> str:
        return next((value for name in names if (value := text(fields, name))), "")

    number = as_number(
        next((fields[name] for name in ("score", "csat_score", "rating") if name in fields), None)
    )
    if number is None:
        raise UnreadableError("a survey without a score")
    task = first("task_sid", "TaskSid")
    conversation = first("conversation_sid", "ConversationSid")
    survey = first("survey")[:SURVEY_MAX] or "csat"
    return Heard(
        id=event.id,
        type="survey.completed",
        identity=event.id,
        time_ms=event.time_ms,
        conversation=conversation,
        links=links(task, conversation, first("call_sid", "CallSid")) or (event.id,),
        score=Score(survey, number),
        identifiers=identifiers(
            {"email": first("email"), "customerAddress": first("phone")}, reading.own_numbers
        ),
    )


_READERS: dict[str, Callable[[RawEvent, Reading], Heard | None]] = {
    "/webhooks/taskrouter": _taskrouter_callback,
    "/webhooks/event-streams": _event_stream,
    "/webhooks/conversations": _conversation_callback,
    "/webhooks/interactions": _interaction_callback,
    "/webhooks/flex/task-complete": _task_complete,
    "/webhooks/survey": _survey,
    "/rest/taskrouter/events": _rest_event,
    "/rest/conversations": _rest_conversation,
    "/rest/conversations/participants": _rest_of_conversation,
    "/rest/conversations/messages": _rest_of_conversation,
}


def _identity(entity: str, type_: str, time_ms: int) -> str:
    return f"{entity}/{type_}" if type_ in ONCE else f"{entity}/{type_}/{time_ms}"


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise UnreadableError(f"not a form: {type(error).__name__}") from error


def _pairs(form: str) -> dict[str, str]:
    try:
        return dict(query_to_pairs(form, max_fields=FIELDS_MAX))  # as parse_qsl, four times as fast
    except ValueError as error:  # more fields than any product sends
        raise UnreadableError(f"not a form: {type(error).__name__}") from error


def _is_json(body: bytes) -> bool:
    return body.lstrip()[:1] == b"{"


def _form_or_json(event: RawEvent) -> dict[str, Any]:
    return _body_object(event.body) if _is_json(event.body) else _pairs(_decoded(event.body))


def _body_object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except NOT_JSON as error:
        raise UnreadableError(f"not a JSON object: {type(error).__name__}") from error
