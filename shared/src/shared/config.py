"""The connector file: what an operator edits.  Every mistake is named with its line and column."""

import difflib
import hashlib
import re
from collections.abc import Iterator
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

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
        dict[RateName, Annotated[int, Meta(ge=1, le=1000)]],
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


class Rule(Struct, forbid_unknown_fields=True, frozen=True):
    """What Brevo is told when something happens."""

    name: Annotated[str, Meta(min_length=1, max_length=255, pattern="^[A-Za-z0-9_-]+$")]
    properties: Annotated[
        dict[Annotated[str, Meta(max_length=255, pattern="^[A-Za-z0-9_-]+$")], str],
        Meta(description="further event properties, each with the source its value comes from"),
    ] = {}
    when: Annotated[
        dict[str, str | int | float | bool | list[str | int | float | bool]],
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

PROPERTIES = (
    "task_sid", "conversation_sid", "channel", "queue", "agent", "wait_seconds", "handle_seconds",
    "duration_seconds", "outcome", "reason", "csat_score",
)  # fmt: skip
"""What every event tells, where it is known; the idempotency key comes on top."""

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

_ATTRIBUTE = re.compile(r"[A-Z][A-Z0-9_]{0,49}")  # facts: mixed case is ignored in silence by Brevo
_UNKNOWN = re.compile(r"unknown field `(.+)`")
_WORDS = {
    "type": get_args(AttributeType),
    "log_level": get_args(LogLevel),
    "resources": get_args(Resource),
    "rates": get_args(RateName),
    "channels": get_args(Channel),
}
PROBLEMS_MAX = 50  # that are told at once
_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Problem(Struct, frozen=True):
    """One mistake, where it stands (from 1), and what to write instead."""

    line: int
    column: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.what}"


class ConfigError(Exception):
    """The file cannot be used; every mistake found is in `problems`."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


def load(path: Path) -> Config:
    """Read and check the file.  Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(str(path), [Problem(1, 1, f"cannot be read: {reason}")]) from error
    return parse(text, str(path))


def parse(text: str, path: str = "config") -> Config:
    """The configuration a text holds.  Pure; raises ConfigError."""
    try:
        tree = YAML().load(StringIO(text)) or {}
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ConfigError(
            path, [Problem(line, column, f"not YAML: {error.problem or error.context}")]
        ) from error
    config, problems = _converted(tree)
    problems += [_problem(tree, steps, what) for steps, what in _mistakes(config)]
    if problems:
        raise ConfigError(path, sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return config


def _converted(tree: Any) -> tuple[Config, list[Problem]]:
    """The configuration without what is not well formed, and each of that."""
    problems: list[Problem] = []
    rest = _plain(tree)
    for _ in range(PROBLEMS_MAX):
        try:
            return msgspec.convert(rest, Config), problems
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `")
            steps = _named_steps(rest, _steps(where.rstrip("`")))
            if what.startswith("Invalid enum value"):
                words = next((_WORDS[step] for step in reversed(steps) if step in _WORDS), ())
                what += f"; it is one of {', '.join(words)}"
            problems.append(_problem(tree, steps, what))
            unknown = _UNKNOWN.search(what)
            if not _without(rest, (*steps, unknown[1]) if unknown else steps):
                break
    return Config(), problems


def _plain(node: Any) -> Any:
    """The tree without what ruamel notes in it: msgspec takes no float of another class."""
    if hasattr(node, "items"):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return float(node) if isinstance(node, float) else node


def _named_steps(tree: Any, steps: tuple[str, ...]) -> tuple[str, ...]:
    """The steps with the keys msgspec does not name."""
    return tuple(
        _bad_key(_at(tree, steps[:n]), steps[:n]) if step == "..." else step for n, step in enumerate(steps)
    )


def _at(tree: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        tree = tree[step]
    return tree


def _without(tree: Any, steps: tuple[str, ...]) -> bool:
    """Take out the entry that is wrong: of a mapping's rule or attribute the whole of it."""
    if not steps:
        return False
    whole = next(
        (n + 2 for n, step in enumerate(steps) if step in ("field_mapping", "event_mapping")), len(steps)
    )
    *above, last = steps[:whole]
    try:
        del _at(tree, tuple(above))[last]
    except (KeyError, TypeError, IndexError):
        return False
    return True


_Found = list[tuple[tuple[str, ...], str]]  # where it stands, and what to write instead


def _mistakes(config: Config) -> _Found:
    """What is well formed and yet cannot be meant."""
    inside = ("connectors", "twilio_flex")
    found: _Found = [
        ((name,), f"{name} stands at the top and inside twilio_flex: keep one")
        for name in ("field_mapping", "event_mapping")
        if getattr(config, name) and getattr(config.flex, name)
    ]
    for name, mistakes in (
        ("field_mapping", _field_mistakes(config.fields)),
        ("event_mapping", _event_mistakes(config.rules)),
    ):
        at = (*inside, name) if getattr(config.flex, name) else (name,)
        found.extend(((*at, key), what) for key, what in mistakes)
    try:
        ZoneInfo(config.flex.time_zone)
    except (KeyError, ValueError, OSError):
        found.append(((*inside, "time_zone"), f"no time zone is called {config.flex.time_zone!r}"))
    return found


def _field_mistakes(fields: dict[str, Attribute]) -> Iterator[tuple[str, str]]:
    taken: dict[str, str] = {}
    for source, field in fields.items():
        right = field.attribute
        if not _PATH.fullmatch(source):
            yield source, f"{source!r} is neither a known source nor a path such as customers.tier"
        if source in IDENTIFIERS and right != IDENTIFIERS[source]:
            yield source, f"{source} identifies the contact: write {IDENTIFIERS[source]} on the right"
        elif source not in IDENTIFIERS and right in ("email", "EMAIL", "SMS", "EXT_ID"):
            yield source, f"{right} identifies the contact: map attributes.email or attributes.phone to it"
        elif right != "email" and not _ATTRIBUTE.fullmatch(right):
            yield source, f"{right!r} is no Brevo attribute name: capitals, digits and _, at most 50"
        if right in taken:
            yield source, f"{right} is filled from {taken[right]} already"
        taken[right] = source
        if source in TYPES and field.type not in (TYPES[source], "text"):
            yield source, f"{source} is a {TYPES[source]}, not a {field.type}"


def _event_mistakes(rules: dict[str, Rule]) -> Iterator[tuple[str, str]]:
    for type_, rule in rules.items():
        if type_.startswith(("worker.", "activity.", "task-channel.", "workspace.")):
            yield type_, f"{type_} happens to no customer, so there is no contact to tell it of"
        elif type_ not in EVENT_TYPES:
            yield type_, f"no event is called {type_!r}; {_nearest(type_)}"
        for source in (*rule.properties.values(), *rule.when):
            if not _PATH.fullmatch(source):
                yield type_, f"{source!r} is neither a property nor a path such as customers.tier"


def _nearest(type_: str) -> str:
    near = difflib.get_close_matches(type_, EVENT_TYPES, n=1)
    return f"did you mean {near[0]}?" if near else "docs/mapping.md lists them"


def _steps(path: str) -> tuple[str, ...]:
    """The path of a msgspec error, `$.lists[0]`, as steps; `...` stands for a key it does not name."""
    return tuple(item or key for item, key in re.findall(r"\[([^\]]*)\]|\.([^.\[]+)", path))


def _bad_key(mapping: dict[str, Any], steps: tuple[str, ...]) -> str:
    """Which value of a mapping cannot be read; the first, where all can."""
    kind: Any = {"field_mapping": str | Attribute, "event_mapping": str | Rule}.get(steps[-1], str)
    for key, value in mapping.items():
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return key
    return next(iter(mapping))


def _problem(tree: Any, steps: tuple[str, ...], what: str) -> Problem:
    """Place a mistake: go down the tree as far as the path leads."""
    line, column = 0, 0
    node: Any = tree
    for depth, step in enumerate(steps):
        try:
            if not hasattr(node, "keys"):
                line, column = node.lc.item(int(step))
                node = node[int(step)]
            else:
                step = _bad_key(node, steps[:depth]) if step == "..." else step  # noqa: PLW2901 - msgspec names no key
                line, column = node.lc.key(step)
                node = node[step]
        except (KeyError, AttributeError, ValueError, IndexError, TypeError):
            break
    unknown = _UNKNOWN.search(what)
    if unknown and hasattr(node, "lc") and unknown[1] in node:
        line, column = node.lc.key(unknown[1])
    return Problem(line + 1, column + 1, what)
