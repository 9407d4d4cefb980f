"""Reading a raw event: from the shape it came in to what it says, whichever way we heard.  Pure.

One function for each source, tolerant of fields that are missing, unknown or null.  Whatever the shape, the
same thing that happened has the same `identity`, so a completion heard from callback, Event Streams, REST
and the Flex plugin is one event.  https://www.twilio.com/docs/taskrouter/api/event/reference
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from yarl import query_to_pairs

from mapper.attributes import identifiers, lookup, scalar
from shared.event import RawEvent

ONCE = frozenset({
    "task.created", "task.canceled", "task.wrapup", "task.completed", "task.deleted", "task.system-deleted",
    "reservation.created", "reservation.accepted", "reservation.rejected", "reservation.timeout",
    "reservation.canceled", "reservation.rescinded", "reservation.wrapup", "reservation.completed",
    "reservation.failed",
    "conversation.added", "conversation.removed", "message.added", "message.removed",
    "participant.added", "participant.removed", "interaction.created", "interaction-channel.created",
})  # fmt: skip
"""What can happen once to its entity; the rest can happen often, and its identity carries the ms."""

_LINK = re.compile(r"(?=.*\d)[\w.:/+-]{8,64}", re.ASCII)

SURVEY_MAX = 64  # characters of a survey's name, which is part of an id
FIELDS_MAX = 1000  # of a form; a TaskRouter callback has some 40

_SNAKE = (
    "task_sid", "task_attributes", "task_channel_unique_name", "task_queue_name", "task_canceled_reason",
    "task_completed_reason", "reason", "reservation_sid", "worker_sid",
)  # fmt: skip
_PASCAL = {"".join(part.capitalize() for part in name.split("_")): name for name in _SNAKE}


class UnreadableError(ValueError):
    """The body is not what its source sends.  The message names a place, never a value."""


class Score(Struct, frozen=True):
    """A satisfaction score, and the survey it answers."""

    survey: str
    score: float


class Heard(Struct, frozen=True, kw_only=True):
    """What one raw event says about one interaction."""

    id: str  # the raw event's
    type: str  # the domain event type, as in an event_mapping
    identity: str  # "<entity sid>/<type>" or "<entity sid>/<type>/<ms>": one thing that happened
    time_ms: int
    task: str = ""  # task sid
    conversation: str = ""  # conversation sid
    links: tuple[str, ...] = ()  # sids and ids that name the same interaction
    thin: bool = False  # not TaskRouter's own account: knows less, and waits for it
    attributes: Mapping[str, Any] = {}  # of the task, or of the conversation
    address: str = ""  # the customer's, where a participant's binding says so
    channel_type: str = ""  # attributes.channelType
    task_channel: str = ""  # unique name of the task channel
    binding: str = ""  # the channel as Conversations or an Interaction names it
    queue: str = ""
    agent: str = ""  # worker sid
    reason: str = ""
    closed: bool = False  # the conversation or the interaction's channel closed
    score: Score | None = None
    identifiers: Mapping[str, str] = {}  # "email" | "external" | "phone" → value


def read(event: RawEvent, own_numbers: frozenset[str] = frozenset()) -> Heard | None:
    """What the event says; None for what concerns no customer (agents, queues, activities).

    Raises UnreadableError.
    """
    try:
        reader = _READERS[event.source]
    except KeyError:
        raise UnreadableError(f"no reader for the source {event.source}") from None
    return reader(event, own_numbers)


def _task_event(event: RawEvent, fields: Mapping[str, Any], own_numbers: frozenset[str]) -> Heard | None:
    """TaskRouter, from whichever of its three shapes, its fields in snake case."""
    task = _text(fields, "task_sid")
    if not _LINK.fullmatch(task):
        return None
    attributes = json_object(fields.get("task_attributes"))
    conversation = _text(attributes, "conversationSid")
    reservation = _text(fields, "reservation_sid")
    entity = reservation if event.type.startswith("reservation.") and reservation else task
    return Heard(
        id=event.id,
        type=event.type,
        identity=_identity(entity, event.type, event.time_ms),
        time_ms=event.time_ms,
        task=task,
        conversation=conversation,
        links=_links(
            task, conversation, attributes.get("call_sid"), lookup(attributes, "conversations.conversation_id"),
            attributes.get("flexInteractionSid"),
        ),
        attributes=attributes,
        channel_type=_text(attributes, "channelType"),
        task_channel=_text(fields, "task_channel_unique_name"),
        queue=_text(fields, "task_queue_name"),
        agent=_text(fields, "worker_sid"),
        reason=_text(fields, "task_canceled_reason") or _text(fields, "task_completed_reason") or _text(fields, "reason"),
        identifiers=identifiers(attributes, own_numbers),
    )  # fmt: skip


def _taskrouter_callback(event: RawEvent, own_numbers: frozenset[str]) -> Heard | None:
    fields = {_PASCAL[name]: value for name, value in _form_or_json(event).items() if name in _PASCAL}
    return _task_event(event, fields, own_numbers)


def _event_stream(event: RawEvent, own_numbers: frozenset[str]) -> Heard | None:
    data = _body_object(event.body).get("data")
    data = json_object(data)  # Kinesis was seen to deliver it as a JSON string
    if event.product == "taskrouter":
        return _task_event(event, json_object(data.get("payload")), own_numbers)
    if event.product == "conversations":
        return _conversation_event(event, data, own_numbers)
    raise UnreadableError(f"no Event Streams reader for the product {event.product}")


def _rest_event(event: RawEvent, own_numbers: frozenset[str]) -> Heard | None:
    return _task_event(event, json_object(_body_object(event.body).get("event_data")), own_numbers)


def _conversation_callback(event: RawEvent, own_numbers: frozenset[str]) -> Heard | None:
    fields = _form_or_json(event)
    binding = {
        name.partition(".")[2]: value
        for name, value in fields.items()
        if name.startswith("MessagingBinding.")
    }
    binding = binding or json_object(fields.get("MessagingBinding"))
    return _conversation_event(event, {**fields, "MessagingBinding": binding}, own_numbers)


def _conversation_event(
    event: RawEvent, fields: Mapping[str, Any], own_numbers: frozenset[str]
) -> Heard | None:
    """Conversations, from callback or stream: flat, in Pascal case, the binding as an object."""
    conversation = _text(fields, "ConversationSid")
    if not _LINK.fullmatch(conversation):
        return None
    binding = json_object(fields.get("MessagingBinding"))
    attributes = json_object(fields.get("Attributes"))
    address = _text(binding, "Address") or _text(binding, "AuthorAddress")
    entity = conversation
    if event.type.startswith("message."):
        entity = _text(fields, "MessageSid") or conversation
    elif event.type.startswith("participant."):
        entity = _text(fields, "ParticipantSid") or conversation
    return Heard(
        id=event.id,
        type=event.type,
        identity=_identity(entity, event.type, event.time_ms),
        time_ms=event.time_ms,
        conversation=conversation,
        links=_links(conversation),
        attributes={},  # a conversation's attributes are not the task's: they identify, and fill no field
        address=address,
        binding=_text(binding, "Type").lower() or address.partition(":")[0] * (":" in address),
        closed=event.type == "conversation-state.updated" and _text(fields, "StateTo") == "closed",
        identifiers=identifiers({**attributes, "customerAddress": address}, own_numbers),
    )


def _interaction_callback(event: RawEvent, own_numbers: frozenset[str]) -> Heard | None:  # noqa: ARG001 - one shape for all readers
    fields = _form_or_json(event)
    interaction, media, task = (
        _text(fields, name) for name in ("InteractionSid", "MediaChannelSid", "TaskSid")
    )
    conversation = media if media.startswith("CH") else ""
    if not (interaction or conversation or task):
        return None
    return Heard(
        id=event.id,
        type=event.type,
        identity=_identity(
            _text(fields, "ChannelSid") or interaction or conversation, event.type, event.time_ms
        ),
        time_ms=event.time_ms,
        conversation=conversation,
        links=_links(interaction, conversation, task),
        binding=_text(fields, "MediaChannelType").lower(),
        closed=event.type == "interaction-channel.status-updated"
        and _text(fields, "ChannelStatus") == "closed",
    )


def _task_complete(event: RawEvent, own_numbers: frozenset[str]) -> Heard | None:
    """Our Flex plugin.  `taskSid` is the task; Flex's own `task.sid` is the reservation."""
    body = _body_object(event.body)
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
        own_numbers,
    )
    return heard and msgspec.structs.replace(heard, thin=True)


def _survey(event: RawEvent, own_numbers: frozenset[str]) -> Heard | None:
    fields = _form_or_json(event)

    def first(*names: str) -> str:
        return next((text for name in names if (text := _text(fields, name))), "")

    number = as_number(
        next((fields[name] for name in ("score", "csat_score", "rating") if name in fields), None)
    )
    if number is None:
        raise UnreadableError("a survey without a score")
    task = first("task_sid", "TaskSid")
    conversation = first("conversation_sid", "ConversationSid")
    links = _links(task, conversation, first("call_sid", "CallSid"))
    survey = first("survey")[:SURVEY_MAX] or "csat"
    return Heard(
        id=event.id,
        type="survey.completed",
        identity=event.id,
        time_ms=event.time_ms,
        conversation=conversation,
        links=links or (event.id,),
        score=Score(survey, number),
        identifiers=identifiers({"email": first("email"), "customerAddress": first("phone")}, own_numbers),
    )


_READERS: dict[str, Callable[[RawEvent, frozenset[str]], Heard | None]] = {
    "/webhooks/taskrouter": _taskrouter_callback,
    "/webhooks/event-streams": _event_stream,
    "/webhooks/conversations": _conversation_callback,
    "/webhooks/interactions": _interaction_callback,
    "/webhooks/flex/task-complete": _task_complete,
    "/webhooks/survey": _survey,
    "/rest/taskrouter/events": _rest_event,
}


def _identity(entity: str, type_: str, time_ms: int) -> str:
    return f"{entity}/{type_}" if type_ in ONCE else f"{entity}/{type_}/{time_ms}"


def _links(*ids: object) -> tuple[str, ...]:
    """Those that name one interaction: sids, and ids long enough that no two strangers share one such as `n/a`."""
    return tuple(dict.fromkeys(id_ for id_ in ids if isinstance(id_, str) and _LINK.fullmatch(id_)))


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = scalar(fields.get(name))
    return value.strip() if isinstance(value, str) else "" if value is None else str(value)


def _form(body: bytes) -> dict[str, Any]:
    try:
        return dict(query_to_pairs(body.decode(), max_fields=FIELDS_MAX))  # as parse_qsl, four times as fast
    except ValueError as error:  # not UTF-8, or more fields than any product sends
        raise UnreadableError(f"not a form: {type(error).__name__}") from error


def _form_or_json(event: RawEvent) -> dict[str, Any]:
    return _body_object(event.body) if event.body.lstrip()[:1] == b"{" else _form(event.body)


def _body_object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(f"not a JSON object: {type(error).__name__}") from error


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
