"""The connector file: what an operator may write in it, and what that means.  connector_file.py reads it."""

import hashlib
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from shared.command import Delivery

Channel = Literal["voice", "sms", "whatsapp", "webchat", "email", "messenger", "video", "rcs"]
AttributeType = Literal["text", "float", "date", "boolean"]
LogLevel = Literal["verbose", "debug", "info", "warning", "error"]


class Sync(Struct, forbid_unknown_fields=True, frozen=True):
    """Which kinds of things are told to Brevo."""

    conversations: Annotated[bool, Meta(description="conversation.*, message.*, participant.* events")] = True
    tasks: Annotated[bool, Meta(description="task.*, reservation.* and task-queue.* events")] = True
    customers: Annotated[bool, Meta(description="contacts with their attributes and lists")] = True
    csat: Annotated[bool, Meta(description="survey.* events and scores")] = True
    agent_activity: Annotated[bool, Meta(description="agents' status in the console; never at Brevo")] = False


class Lists(Struct, forbid_unknown_fields=True, frozen=True):
    """Ids of Brevo lists."""

    support_contacts: Annotated[int, Meta(ge=1)] | None = None  # every customer upserted
    csat_respondents: Annotated[int, Meta(ge=1)] | None = None  # those with a survey


class Survey(Struct, forbid_unknown_fields=True, frozen=True):
    """Where a satisfaction score may stand in task attributes, first match first.  Flex has no field of its own."""

    score: tuple[str, ...] = ("csat_score", "survey.score", "conversations.csat_score")
    comment: tuple[str, ...] = ("csat_comment", "survey.comment")
    name: tuple[str, ...] = ("survey.name",)


RateName = Literal[
    "flex", "conversations", "taskrouter", "taskrouter_events", "events", "interactions", "web_chats", "web_channels"
]  # fmt: skip

Rate = Annotated[int, Meta(ge=1, le=1000)]

Resource = Literal[
    "tasks", "conversations", "messages", "open_tasks", "workers", "task_queues", "statistics", "channels"
]


class Poller(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How Twilio is asked for what webhooks missed."""

    enabled: bool = True
    resources: Annotated[
        tuple[Resource, ...],
        Meta(description="what is polled; what each is stands in docs/configuration.md"),
    ] = ("tasks", "conversations", "open_tasks", "workers", "task_queues")
    interval_s: Annotated[float, Meta(gt=0, le=3600, description="seconds between two polls")] = 60.0
    overlap_s: Annotated[
        float,
        Meta(ge=0, le=86400, description="how far each poll looks back behind where the last one ended"),
    ] = 300.0
    look_back_s: Annotated[
        float, Meta(ge=0, le=30 * 86400, description="how far the very first poll looks back")
    ] = 3600.0
    rate_fraction: Annotated[
        float, Meta(gt=0, le=1, description="how much of Twilio's limits is ours; others share the account")
    ] = 0.8
    rates: Annotated[
        dict[RateName, Rate],
        Meta(description="calls a second, where the account's limits are others than those we know of"),
    ] = {}
    workspace_sid: Annotated[str, Meta(description="WS…; else what Flex says")] = ""
    chat_service_sid: Annotated[str, Meta(description="IS…; else what Flex says")] = ""


class Replay(Struct, forbid_unknown_fields=True, frozen=True):
    """What holds when Brevo is told of the past again."""

    event_age_max_s: Annotated[
        float,
        Meta(
            ge=0,
            description="seconds; an event that happened longer ago is not sent by a replay unasked: at Brevo automations may fire",
        ),
    ] = 3600.0


class Attribute(Struct, forbid_unknown_fields=True, frozen=True):
    """A Brevo attribute, where its type is not the one its source has."""

    attribute: Annotated[str, Meta(min_length=1)]
    type: AttributeType = "text"


Wanted = str | int | float | bool | list[str | int | float | bool]


class Rule(Struct, forbid_unknown_fields=True, frozen=True):
    """What Brevo is told when something happens."""

    name: Annotated[str, Meta(min_length=1, max_length=255, pattern="^[A-Za-z0-9_-]+$")]
    properties: Annotated[
        dict[Annotated[str, Meta(max_length=255, pattern="^[A-Za-z0-9_-]+$")], str],
        Meta(description="further event properties, each with the source its value comes from"),
    ] = {}
    when: Annotated[
        dict[str, Wanted],
        Meta(description="sources and the value, or values, each must have"),
    ] = {}
    enabled: bool = True
    delivery: Annotated[
        Delivery, Meta(description="what to do when nobody knows whether Brevo took the event")
    ] = "exactly_once"


FieldMapping = dict[str, str | Attribute]
EventMapping = dict[str, str | Rule]


class TwilioFlex(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One Twilio Flex account."""

    enabled: Annotated[
        bool, Meta(description="false: events are logged, and mapped once it is true again")
    ] = True
    account_sid: str = ""
    flex_flow_sid: Annotated[str, Meta(description="filters legacy Flex channels only")] = ""
    sync: Sync = Sync()
    lists: Lists = Lists()
    channels: tuple[Channel, ...] = ("voice", "sms", "whatsapp", "webchat")
    survey: Survey = Survey()
    poller: Poller = Poller()
    replay: Replay = Replay()
    own_numbers: Annotated[
        tuple[str, ...], Meta(description="the business's own numbers: they identify nobody")
    ] = ()
    message_bodies: Annotated[bool, Meta(description="keep what customers and agents wrote in the log")] = (
        False
    )
    time_zone: Annotated[
        str, Meta(description="in which a conversation's date is told, such as Europe/Paris")
    ] = "UTC"
    debug: bool = False
    log_level: LogLevel = "info"
    log_api_calls: bool = False
    field_mapping: FieldMapping | None = None
    event_mapping: EventMapping | None = None


class Connectors(Struct, forbid_unknown_fields=True, frozen=True):
    """The connectors of this installation."""

    twilio_flex: TwilioFlex = TwilioFlex()


class Config(Struct, forbid_unknown_fields=True, frozen=True, dict=True):
    """The whole file.  The mappings may stand at the top or inside `twilio_flex`, not in both."""

    connectors: Connectors = Connectors()
    field_mapping: FieldMapping | None = None
    event_mapping: EventMapping | None = None

    @property
    def flex(self) -> TwilioFlex:
        """The Twilio Flex connector."""
        return self.connectors.twilio_flex

    @cached_property
    def fields(self) -> dict[str, Attribute]:
        """Source → Brevo attribute.  `email` is Brevo's own field, SMS its phone attribute."""
        written = self.field_mapping or self.flex.field_mapping or {}
        return {
            source: Attribute(right, TYPES.get(source, "text")) if isinstance(right, str) else right
            for source, right in written.items()
        }

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """Domain event type → what Brevo is told; only rules that are enabled."""
        written = self.event_mapping or self.flex.event_mapping or {}
        rules = {type_: Rule(right) if isinstance(right, str) else right for type_, right in written.items()}
        return {type_: rule for type_, rule in rules.items() if rule.enabled}

    @cached_property
    def hash(self) -> str:
        """Of all that decides which commands an event makes: another hash is another mapping."""
        flex = self.flex
        parts = (
            self.fields,
            {
                type_: msgspec.convert(rule, _Decisive, from_attributes=True)
                for type_, rule in self.rules.items()
            },
            flex.sync,
            flex.lists,
            flex.channels,
            flex.survey,
            flex.own_numbers,
            flex.time_zone,
        )
        return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:12]


class _Decisive(Struct):
    """What of a rule decides which commands an event makes: how they are delivered does not."""

    name: str
    properties: dict[str, str]
    when: dict[str, Any]
    enabled: bool


TYPES: dict[str, AttributeType] = {
    "identity": "text",
    "friendly_name": "text",
    "last_conversation_date": "date",
    "first_contact_date": "date",
    "total_conversations": "float",
    "abandoned_conversations": "float",
    "open_tasks": "float",
    "avg_wait_time": "float",
    "avg_handle_time": "float",
    "last_csat_score": "float",
    "preferred_channel": "text",
}
"""The sources the mapper computes, and the type each has at Brevo (whose numbers are `float`).  docs/mapping.md"""

IDENTIFIERS = {"attributes.email": "email", "attributes.phone": "SMS"}
"""The two sources that identify: whichever attribute of the task holds them, they go where Brevo identifies by."""

EVENT_TYPES = (
    "task.created", "task.updated", "task.canceled", "task.wrapup", "task.completed", "task.deleted",
    "task.system-deleted", "task.transfer-initiated", "task.transfer-attempt-failed", "task.transfer-failed",
    "task.transfer-canceled", "task.transfer-completed",
    "reservation.created", "reservation.accepted", "reservation.rejected", "reservation.timeout",
    "reservation.canceled", "reservation.rescinded", "reservation.wrapup", "reservation.completed",
    "reservation.failed",
    "task-queue.entered", "task-queue.timeout", "task-queue.moved",
    "workflow.entered", "workflow.target-matched", "workflow.timeout", "workflow.skipped",
    "conversation.added", "conversation.updated", "conversation.removed", "conversation-state.updated",
    "conversation.ended",
    "message.added", "message.updated", "message.removed",
    "participant.added", "participant.updated", "participant.removed",
    "interaction.created", "interaction-channel.created", "interaction-channel.status-updated",
    "survey.completed",
)  # fmt: skip
"""The domain events that happen to a customer, as Twilio names them, with conversation.ended and survey.completed
for what Twilio has no name for.  https://www.twilio.com/docs/taskrouter/api/event/reference"""
