"""What can be told with handle_event: each type with its fields, and the request that tells it.  Pure."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from mapper.attributes import e164, identifiers
from shared.config import Channel
from shared.event import epoch_ms

TEXT_MAX = 1000  # characters; as much as the mapper reads of any
DURATION_MAX_S = 31 * 24 * 3600  # a task lives 14 days at most, and a day more once it is assigned

_Text = Annotated[str, Meta(max_length=TEXT_MAX)]


class EventError(ValueError):
    """What is wrong with a type or a payload.  No value is repeated."""


class Request(Struct, frozen=True):
    """What is posted to ingest."""

    path: str
    body: bytes


class TaskCompleted(Struct, forbid_unknown_fields=True, frozen=True):
    """A task was completed."""

    task_sid: Annotated[str, Meta(pattern="^WT[0-9a-f]{32}$")]
    customer_email: _Text = ""
    channel: Channel | Literal["web", "chat", ""] = ""
    duration: Annotated[float, Meta(ge=0, le=DURATION_MAX_S)] = 0  # seconds, from creation to completion
    queue_name: _Text = ""
    time: _Text = ""  # RFC 3339; when it happened, else now


class SurveyCompleted(Struct, forbid_unknown_fields=True, frozen=True):
    """A customer answered a survey, about an interaction or at large."""

    score: Annotated[float, Meta(ge=0, le=100)]
    survey: Annotated[str, Meta(max_length=64)] = ""
    comment: _Text = ""
    task_sid: Annotated[str, Meta(pattern="^(WT[0-9a-f]{32})?$")] = ""
    conversation_sid: Annotated[str, Meta(pattern="^(CH[0-9a-f]{32})?$")] = ""
    call_sid: Annotated[str, Meta(pattern="^(CA[0-9a-f]{32})?$")] = ""
    customer_email: _Text = ""
    customer_phone: _Text = ""  # E.164
    id: Annotated[str, Meta(max_length=128)] = ""  # yours; else a survey is its name and the interaction
    time: _Text = ""


def request_of(type_: str, payload: Mapping[str, Any], *, now: str) -> Request:
    """The request that tells of it; `now` is RFC 3339.  Raises EventError."""
    if type_ not in TYPES:
        raise EventError(f"no event of the type {type_!r} can be told; there are {', '.join(TYPES)}")
    kind, tell = TYPES[type_]
    if not isinstance(payload, Mapping):  # no type checker need have seen who calls
        raise EventError(
            f"{type_}: the payload is no mapping; its fields are {', '.join(kind.__struct_fields__)}"
        )
    try:
        told = msgspec.convert(dict(payload), kind)
    except msgspec.ValidationError as error:
        raise EventError(f"{type_}: {error}; its fields are {', '.join(kind.__struct_fields__)}") from None
    if told.customer_email and not identifiers({"email": told.customer_email}, frozenset()):
        raise EventError(f"{type_}: customer_email is no mail address")
    try:
        epoch_ms(told.time or now)
    except ValueError:
        raise EventError(f"{type_}: time is not RFC 3339, such as 2026-11-20T10:14:05Z") from None
    return tell(told, told.time or now)


def _task_completed(told: TaskCompleted, time: str) -> Request:
    body = {
        "task_sid": told.task_sid, "customer_email": told.customer_email, "channel": told.channel,
        "duration": told.duration or "", "queue_name": told.queue_name, "occurredAt": time,
    }  # fmt: skip
    return _request("/webhooks/flex/task-complete", body)


def _survey_completed(told: SurveyCompleted, time: str) -> Request:
    if told.customer_phone and not e164(told.customer_phone):
        raise EventError("survey.completed: customer_phone is not E.164, such as +12025550101")
    body = {
        "score": told.score, "survey": told.survey, "comment": told.comment, "task_sid": told.task_sid,
        "conversation_sid": told.conversation_sid, "call_sid": told.call_sid, "email": told.customer_email,
        "phone": told.customer_phone, "id": told.id, "time": time,
    }  # fmt: skip
    if not any(body[name] for name in ("task_sid", "conversation_sid", "call_sid", "email", "phone")):
        raise EventError(
            "survey.completed of nobody: give task_sid, conversation_sid, call_sid, customer_email or customer_phone"
        )
    return _request("/webhooks/survey", body)


def _request(path: str, body: Mapping[str, Any]) -> Request:
    return Request(path, msgspec.json.encode({name: value for name, value in body.items() if value != ""}))


TYPES: dict[str, tuple[Any, Callable[[Any, str], Request]]] = {
    "task.completed": (TaskCompleted, _task_completed),
    "survey.completed": (SurveyCompleted, _survey_completed),
}
"""Type → its fields, and how it is told."""
