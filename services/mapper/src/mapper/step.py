"""The judgement of the mapper: what an event changes, what Brevo is told, and when.  Pure: time is an argument.

What Brevo is to be told of waits in its interaction until three things are known: whose it is, on which
channel it was, and, for at most HOLD_MS, the rest of its story.  The first two decide whether it goes out
at all, and may take long; the third only fills its properties.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from mapper.heard import Heard
from mapper.interaction import Interaction, Task, Waiting, completed_ms, handle_ms, join_event, wait_ms
from mapper.said import NAMED, Reading
from shared.command import EventTrack
from shared.config import IDENTIFIERS, TYPES, Config, Rule, Sync
from shared.event import rfc3339
from shared.plain import plain

HOLD_MS = 10_000  # for events that come out of order; Twilio's callbacks spread over a few seconds
KEEP_MS = 30 * 24 * 3600 * 1000  # for a name to come: as long as Twilio keeps its own events

ENDED = "conversation.ended"
SURVEY = "survey.completed"


class Policy(Struct, frozen=True):
    """What of the configuration decides."""

    config: Config
    reading: Reading
    tells: frozenset[str]  # domain event types that a rule tells of, their kind switched on

    @classmethod
    def of(cls, config: Config) -> "Policy":
        """Read it off a connector file."""
        wanted = {
            *config.fields,
            *(source for rule in config.rules.values() for source in rule.properties.values()),
        }
        wanted |= {source for rule in config.rules.values() for source in rule.when}
        kept = sorted(s for s in wanted if s not in IDENTIFIERS and (s not in TYPES or s in NAMED))
        reading = Reading(frozenset(config.flex.own_numbers), tuple(kept), config.flex.survey)
        return cls(
            config, reading, frozenset(type_ for type_ in config.rules if _is_on(type_, config.flex.sync))
        )


def _is_on(type_: str, sync: Sync) -> bool:
    if type_.startswith("survey."):
        return sync.csat
    if type_.startswith(("conversation", "message.", "participant.", "interaction")):
        return sync.conversations
    return sync.tasks


def hear(interaction: Interaction, heard: Heard, policy: Policy, *, now_ms: int, trace: str) -> None:
    """Join what an event says, and note what Brevo is to be told of.  Changes `interaction` only; idempotent."""
    join_event(interaction, heard)
    if heard.type != SURVEY and heard.type in policy.tells:
        agent = heard.agent if heard.type.startswith("reservation.") else ""
        event = Waiting(
            heard.type, heard.time_ms, now_ms, task=heard.task, agent=agent, thin=heard.thin, trace=trace
        )
        _await(interaction, heard.identity, event)
    if (
        ENDED not in interaction.told
        and ENDED not in interaction.waiting
        and ENDED in policy.tells
        and interaction.ended_ms
    ):
        _await(interaction, ENDED, Waiting(ENDED, interaction.ended_ms, now_ms, trace=trace))
    if heard.score and SURVEY in policy.tells:
        name = heard.score.survey
        _await(interaction, f"{SURVEY}/{name}", Waiting(SURVEY, 0, now_ms, survey=name, trace=trace))


def _await(interaction: Interaction, key: str, event: Waiting) -> None:
    if key in interaction.told:
        return
    known = interaction.waiting.setdefault(key, event)
    known.thin &= event.thin
    known.time_ms = min(known.time_ms, event.time_ms)


def due_ms(interaction: Interaction) -> int:
    """When to look at it again though nothing more is heard; 0 for never."""
    placed = interaction.channel or interaction.only_a_survey
    held = HOLD_MS if interaction.anchor and placed else KEEP_MS
    return min((event.heard_ms + held for event in interaction.waiting.values()), default=0)


class Released(Struct):
    """What went out of an interaction's waiting room."""

    commands: list[tuple[EventTrack, str]]  # each with the trace it belongs to
    nobody: list[str]  # command ids given up: no identity came within KEEP_MS


def release(interaction: Interaction, customer: str, policy: Policy, *, now_ms: int) -> Released:
    """Let go what may go; `customer` is whose it is, or empty.  Changes `waiting` and `told` of `interaction` only."""
    out = Released([], [])
    for key, event in list(interaction.waiting.items()):
        rule = policy.config.rules.get(event.type)
        if (
            key not in interaction.told and rule is not None
        ):  # else the interaction it was joined with told it
            if not customer or not (interaction.channel or interaction.only_a_survey):
                if now_ms < event.heard_ms + KEEP_MS:
                    continue
                out.nobody.append(_command_id(interaction.sid, key, event))
            elif interaction.channel in policy.config.flex.channels or interaction.only_a_survey:
                if not _complete(interaction, event) and now_ms < event.heard_ms + HOLD_MS:
                    continue
                track = _track(interaction, customer, key, event, rule)
                if all(
                    _matches(source, wanted, interaction, track.properties)
                    for source, wanted in rule.when.items()
                ):
                    out.commands.append((track, event.trace))
            elif now_ms < event.heard_ms + HOLD_MS:
                continue  # what else is heard may put it on another channel
        del interaction.waiting[key]
        interaction.told.add(key)
    return out


def _complete(interaction: Interaction, event: Waiting) -> bool:
    """Whether all its default properties are known that will ever be."""
    task = interaction.tasks.get(event.task)
    match event.type:
        case "task.completed":
            lasted = task is not None and ("task.created" in task.at or "duration_ms" in task.said)
            return (
                task is not None and lasted and not event.thin and (task.virtual or wait_ms(task) is not None)
            )
        case "task.canceled":
            return task is not None and "task.created" in task.at
        case "conversation.ended":
            return interaction.wait_ms is not None and interaction.created_ms > 0 and not interaction.unheard
        case "survey.completed":
            return interaction.only_a_survey or (
                not interaction.unheard
                and any(task.at and not task.virtual for task in interaction.tasks.values())
            )
        case _:
            return not event.thin


def waiting_ids(interaction: Interaction) -> dict[str, set[str]]:
    """What waits → ids of the command that may come of it, or came of it already (recognise.py)."""
    return {
        key: {_command_id(sid, key, event) for sid in (interaction.sid, *interaction.links)}
        for key, event in interaction.waiting.items()
    }


def _command_id(sid: str, key: str, event: Waiting) -> str:
    """The domain event's identity, then the rule's left-hand name; `sid` is the interaction's."""
    identity = f"{sid}/{key}" if event.type in (ENDED, SURVEY) else key
    return f"{identity}/{event.type}"


def _track(interaction: Interaction, customer: str, key: str, event: Waiting, rule: Rule) -> EventTrack:
    time_ms = event.time_ms
    if event.type == SURVEY:
        time_ms = interaction.surveys[event.survey].ms
    elif event.type == ENDED:
        time_ms = interaction.ended_ms
    elif event.type == "task.completed" and event.task in interaction.tasks:
        time_ms = completed_ms(interaction.tasks[event.task])
    properties = _properties(interaction, event)
    for name, source in rule.properties.items():
        value = _value(source, interaction, properties)
        if value is not None:
            properties[name] = value
    return EventTrack(
        id=_command_id(interaction.sid, key, event),
        ext_id=customer,
        name=rule.name,
        time=rfc3339(time_ms),
        properties=properties,
        delivery=rule.delivery,
    )


def _properties(interaction: Interaction, event: Waiting) -> dict[str, str | int]:
    """What every event tells, where it is known; the idempotency key comes on top.  docs/mapping.md"""
    task_sid = event.task or interaction.task_sid
    task = interaction.tasks.get(task_sid, Task())
    of_task = bool(event.task)
    wait = wait_ms(task) if of_task else interaction.wait_ms
    handle = handle_ms(task) if of_task else interaction.handle_ms
    start = task.at.get("task.created", 0) if of_task else interaction.created_ms
    end = completed_ms(task) or task.at.get("task.canceled", 0) if of_task else interaction.ended_ms
    told_ms = task.said["duration_ms"].value if of_task and "duration_ms" in task.said else None
    queue = task.said.get("queue") or task.said.get(
        "thin_queue"
    )  # TaskRouter's own word, else a thin source's
    score = interaction.surveys.get(event.survey)
    known: dict[str, str | int | None] = {
        "task_sid": task_sid,
        "conversation_sid": min(
            interaction.conversations, key=interaction.conversations.__getitem__, default=""
        ),
        "channel": interaction.channel,
        "queue": queue.value if queue else "",
        **{name: task.said[name].value for name in ("agent", "outcome") if name in task.said},
        **({"agent": event.agent} if event.agent else {}),
        "wait_seconds": _seconds(wait),
        "handle_seconds": _seconds(handle),
        "duration_seconds": _seconds(end - start if start and end else told_ms),
        "reason": task.said["reason"].value
        if event.type.startswith("task.") and "reason" in task.said
        else "",
        "csat_score": told(score.value) if score else None,
    }
    return {name: value for name, value in known.items() if value not in (None, "")}


def _seconds(ms: int | None) -> int | None:
    """Whole seconds, half up."""
    return None if ms is None else (ms + 500) // 1000


def told(value: Any) -> str | int | None:
    """A value as an event property may hold it; None for one it cannot."""
    return plain(value) if isinstance(value, str | int | float) else None


def _value(source: str, interaction: Interaction, properties: Mapping[str, Any]) -> str | int | None:
    """A source of a rule: a default property, else a mapped value of the interaction."""
    if source in properties:
        return told(properties[source])
    said = interaction.fields.get(source)
    return told(said.value) if said else None


def _matches(source: str, wanted: Any, interaction: Interaction, properties: Mapping[str, Any]) -> bool:
    value = _value(source, interaction, properties)
    return any(told(one) == value for one in (wanted if isinstance(wanted, list) else [wanted]))


def summaries(interactions: Iterator[Interaction]) -> Iterator["Summary"]:
    """What the book keeps in columns, for the aggregates."""
    for interaction in interactions:
        first = min(interaction.surveys.values(), key=lambda said: (said.ms, said.id), default=None)
        last = max(interaction.surveys.values(), key=lambda said: (said.ms, said.id), default=first)
        yield Summary(
            key=interaction.key,
            anchor=interaction.anchor,
            channel=interaction.channel,
            start_ms=interaction.start_ms,
            handled=interaction.handled,
            abandoned=interaction.abandoned,
            wait_ms=interaction.wait_ms if interaction.handled else None,
            handle_ms=interaction.handle_ms,
            open_tasks=interaction.open_tasks,
            score=last.value if last else None,
            score_ms=last.ms if last else None,
        )


class Summary(Struct, frozen=True, kw_only=True):
    """One interaction, as its customer's aggregates need it."""

    key: str
    anchor: str
    channel: str
    start_ms: int
    handled: bool
    abandoned: bool
    wait_ms: int | None
    handle_ms: int | None
    open_tasks: int
    score: float | None
    score_ms: int | None
