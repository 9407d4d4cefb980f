"""An interaction: one contact of one customer, as a join of facts.  Pure.

Each fact is kept so that joining is idempotent, commutative and associative: an earliest time, a latest
value by (time, event id), a set.  Hence any order and any repetition of the same events makes the same
interaction, and two that turn out to be one are joined the same way.
"""

from typing import Any

from msgspec import Struct

from mapper.heard import Heard

CHANNELS = {"web": "webchat", "chat": "webchat"}  # the rest are called what Twilio calls them

_ENDED = frozenset({"task.completed", "task.canceled", "task.deleted", "task.system-deleted"})
_HANDLED = frozenset({"reservation.accepted", "task.wrapup", "task.completed"})
# Only an assigned task can be wrapped up or completed.  https://www.twilio.com/docs/taskrouter/lifecycle-task-state

_TAKEN = (
    "reservation.accepted",
    "reservation.wrapup",
    "reservation.completed",
)  # others name who was only asked


class Dated(Struct, array_like=True, gc=False):
    """A value, and when and by which event it was said."""

    ms: int
    id: str
    value: Any


class Seen(Struct, array_like=True, gc=False):
    """When an identifier was first and last seen, by which event."""

    first_ms: int
    first_id: str
    last_ms: int
    last_id: str


class Task(Struct, omit_defaults=True, gc=False):
    """One task of an interaction."""

    at: dict[str, int] = {}  # event type → the earliest ms it was heard of
    said: dict[str, Dated] = {}  # queue, thin_queue, duration_ms, agent, reason, outcome: the latest
    thin_completed_ms: int = 0  # when only the Flex plugin said so
    virtual: bool = False  # made for a survey or a report: nobody is asked to handle it


class Waiting(Struct, omit_defaults=True, gc=False):
    """A domain event that Brevo is to be told of, until it goes out."""

    type: str
    time_ms: int
    heard_ms: int  # when we heard first; waiting is counted from here
    task: str = ""
    survey: str = ""
    agent: str = ""  # of a reservation's event: whose it was, accepted or not
    thin: bool = False
    trace: str = ""


class Interaction(Struct, omit_defaults=True, gc=False):
    """All that is known of one interaction."""

    key: str  # names the row: one of its links
    links: set[str] = set()  # every sid and id it is known by
    tasks: dict[str, Task] = {}
    conversations: dict[str, int] = {}  # sid → earliest ms
    channels: dict[str, Dated] = {}  # channelType, task_channel, binding: the earliest said
    first_ms: int = 0
    closed_ms: int = 0
    identifiers: dict[str, Seen] = {}  # "email:…", "external:…", "phone:…"
    fields: dict[str, Dated] = {}  # mapped source → the latest value
    surveys: dict[str, Dated] = {}  # survey name → the first score: a survey is answered once
    waiting: dict[str, Waiting] = {}  # what Brevo is to be told of
    told: set[str] = set()  # what it was told of, or will never be
    anchor: str = ""  # the identifier that says whose it is; an empty text while nobody's

    # -- what follows is derived --------------------------------------------------------------------------

    @property
    def sid(self) -> str:
        """The Conversation sid if there is one, else the Task sid: the earliest."""
        if self.conversations:
            return min(self.conversations, key=lambda sid: (self.conversations[sid], sid))
        return self.task_sid or self.key

    @property
    def unheard(self) -> set[str]:
        """Tasks that others name as the one they follow, of which nothing was heard yet."""
        return {sid for sid in self.links if sid.startswith("WT")} - self.tasks.keys()

    @property
    def task_sid(self) -> str:
        """The task it is about: the one others follow; else the earliest that is not virtual; else the earliest."""
        if unheard := self.unheard:
            return min(unheard)
        return min(
            self.tasks, key=lambda sid: (self.tasks[sid].virtual, _earliest(self.tasks[sid]), sid), default=""
        )

    @property
    def only_a_survey(self) -> bool:
        """Whether it is a person's answer that names no interaction: it has no channel, and never will."""
        return all(link.startswith("survey:") for link in self.links)

    @property
    def channel(self) -> str:
        """As `channels` in the connector file names it; an empty text while unknown."""
        for name in ("channelType", "task_channel", "binding"):
            said = self.channels.get(name)
            if said and said.value not in ("", "default"):
                return CHANNELS.get(said.value, str(said.value))
        return ""

    @property
    def handled(self) -> bool:
        """Whether an agent took it."""
        return any(map(_is_handled, self._real()))

    @property
    def abandoned(self) -> bool:
        """Whether it was canceled before any agent took it."""
        return not self.handled and any("task.canceled" in task.at for task in self._real())

    @property
    def created_ms(self) -> int:
        """When its first task was created; 0 while unknown."""
        return min((task.at["task.created"] for task in self._real() if "task.created" in task.at), default=0)

    @property
    def start_ms(self) -> int:
        """When it began: its first task's creation, else the first we know of."""
        return self.created_ms or self.first_ms

    @property
    def wait_ms(self) -> int | None:
        """From the first time in a queue (else creation) to the first acceptance; None unless both are known."""
        return wait_ms(*self._real())

    @property
    def handle_ms(self) -> int | None:
        """From acceptance to completion, over its tasks; None while none is completed."""
        times = [ms for task in self._real() if (ms := handle_ms(task)) is not None]
        return sum(times) if times else None

    @property
    def ended_ms(self) -> int:
        """The first of: conversation closed, wrap-up, completion, channel closed; 0 while none, or nobody handled it."""
        if not self.handled:
            return 0
        ends = [self.closed_ms] if self.closed_ms else []
        for task in self._real():
            ends += [task.at[type_] for type_ in ("task.wrapup", "task.completed") if type_ in task.at]
            ends += [completed] if (completed := completed_ms(task)) else []
        return min(ends, default=0)

    @property
    def open_tasks(self) -> int:
        """Tasks that have not ended."""
        return sum(_ENDED.isdisjoint(task.at) and not task.thin_completed_ms for task in self.tasks.values())

    def _real(self) -> list[Task]:
        return [task for task in self.tasks.values() if not task.virtual]


def _is_handled(task: Task) -> bool:
    return bool(task.thin_completed_ms) or not _HANDLED.isdisjoint(task.at)


def completed_ms(task: Task) -> int:
    """TaskRouter's own word, else the plugin's; 0 while neither."""
    return task.at.get("task.completed", 0) or task.thin_completed_ms


def wait_ms(*tasks: Task) -> int | None:
    """From the first time in a queue (else creation) to the first acceptance."""
    accepted = min(
        (task.at["reservation.accepted"] for task in tasks if "reservation.accepted" in task.at), default=None
    )
    entered = [task.at["task-queue.entered"] for task in tasks if "task-queue.entered" in task.at]
    began = entered or [task.at["task.created"] for task in tasks if "task.created" in task.at]
    return max(0, accepted - min(began)) if accepted is not None and began else None


def handle_ms(task: Task) -> int | None:
    """Completion less acceptance."""
    completed = completed_ms(task)
    return (
        max(0, completed - task.at["reservation.accepted"])
        if completed and "reservation.accepted" in task.at
        else None
    )


def join_event(into: Interaction, heard: Heard) -> None:
    """Add what one event says.  Changes `into` only."""
    ms, id_ = heard.time_ms, heard.id
    into.first_ms = min(into.first_ms or ms, ms)
    into.links.update(heard.links)
    if heard.conversation:
        into.conversations[heard.conversation] = min(into.conversations.get(heard.conversation, ms), ms)
    if heard.closed:
        into.closed_ms = min(into.closed_ms or ms, ms)
    for name, channel in (
        ("channelType", heard.channel_type), ("task_channel", heard.task_channel), ("binding", heard.binding),
    ):  # fmt: skip
        if channel and not heard.virtual:  # a survey's task has a channel of the survey's own
            known = into.channels.get(name)
            if known is None or (ms, id_) < (known.ms, known.id):
                into.channels[name] = Dated(ms, id_, channel.lower())
    for kind, value in heard.identifiers.items():
        key = f"{kind}:{value}"
        if (seen := into.identifiers.get(key)) is None:
            into.identifiers[key] = Seen(ms, id_, ms, id_)
        else:
            see_at(seen, ms, id_)
    for source, value in heard.fields.items():
        known = into.fields.get(source)
        if (
            known is None or ms > known.ms or (ms == known.ms and id_ > known.id)
        ):  # keep_latest, of what is new
            into.fields[source] = Dated(ms, id_, value)
    if heard.score:
        _keep_earliest(into.surveys, heard.score.survey, Dated(ms, id_, heard.score.score))
    if heard.task:
        _join_task_event(into.tasks.setdefault(heard.task, Task()), heard)


def _join_task_event(task: Task, heard: Heard) -> None:
    task.virtual |= heard.virtual
    if heard.thin:
        task.thin_completed_ms = min(task.thin_completed_ms or heard.time_ms, heard.time_ms)
    else:
        task.at[heard.type] = min(task.at.get(heard.type, heard.time_ms), heard.time_ms)
    for name, value in (
        ("thin_queue" if heard.thin else "queue", heard.queue), ("duration_ms", heard.duration_ms), ("agent", heard.agent if heard.thin or heard.type in _TAKEN else ""), ("reason", heard.reason),
        ("outcome", heard.outcome),
    ):  # fmt: skip
        if value:
            keep_latest(task.said, name, Dated(heard.time_ms, heard.id, value))


def join(into: Interaction, other: Interaction) -> None:
    """Add all that another knows: the two are one.  Changes `into` only."""
    into.links |= other.links
    into.told |= other.told
    for name in ("first_ms", "closed_ms"):
        known = [ms for ms in (getattr(into, name), getattr(other, name)) if ms]
        setattr(into, name, min(known, default=0))
    for sid, ms in other.conversations.items():
        into.conversations[sid] = min(into.conversations.get(sid, ms), ms)
    for name, said in other.channels.items():
        _keep_earliest(into.channels, name, said)
    for key, seen in other.identifiers.items():
        if (when := into.identifiers.get(key)) is None:
            into.identifiers[key] = seen  # the other is no more
        else:
            see(when, seen)
    for survey, score in other.surveys.items():
        _keep_earliest(into.surveys, survey, score)
    for source, said in other.fields.items():
        keep_latest(into.fields, source, said)
    for sid, task in other.tasks.items():
        _join_task(into.tasks.setdefault(sid, Task()), task)
    for identity, waiting in other.waiting.items():
        into.waiting.setdefault(identity, waiting)


def _join_task(into: Task, other: Task) -> None:
    for type_, ms in other.at.items():
        into.at[type_] = min(into.at.get(type_, ms), ms)
    for name, said in other.said.items():
        keep_latest(into.said, name, said)
    thin = [ms for ms in (into.thin_completed_ms, other.thin_completed_ms) if ms]
    into.thin_completed_ms = min(thin, default=0)
    into.virtual |= other.virtual


def _earliest(task: Task) -> int:
    return min(task.at.values(), default=task.thin_completed_ms)


def keep_latest(among: dict[str, Dated], name: str, said: Dated) -> None:
    """The later by (time, event id) stays."""
    known = among.get(name)
    if known is None or (said.ms, said.id) > (known.ms, known.id):
        among[name] = said


def _keep_earliest(among: dict[str, Dated], name: str, said: Dated) -> None:
    known = among.get(name)
    if known is None or (said.ms, said.id) < (known.ms, known.id):
        among[name] = said


def see(one: Seen, other: Seen) -> None:
    """When first and last seen, over both.  Changes `one` only."""
    see_at(one, other.first_ms, other.first_id)
    see_at(one, other.last_ms, other.last_id)


def see_at(seen: Seen, ms: int, id_: str) -> None:
    """The same with one moment."""
    if ms <= seen.first_ms and (ms, id_) < (seen.first_ms, seen.first_id):
        seen.first_ms, seen.first_id = ms, id_
    if ms >= seen.last_ms and (ms, id_) > (seen.last_ms, seen.last_id):
        seen.last_ms, seen.last_id = ms, id_
