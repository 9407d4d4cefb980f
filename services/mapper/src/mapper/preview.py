"""What Brevo would be told of given events, and what not and why.  Nothing is said; the book is one in memory."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from mapper.book import Book
from mapper.explain import named
from mapper.heard import Heard, UnreadableError, read
from mapper.interaction import Interaction
from mapper.made import Made
from mapper.step import HOLD_MS, Policy
from mapper.take import look, take
from shared.command import ContactRelink, ContactUpsert, EventTrack, Value
from shared.event import RawEvent


class Fact(Struct, frozen=True):
    """An attribute a contact would have, and what it is made of."""

    attribute: str
    value: Value
    source: str


class Contact(Struct, frozen=True, rename="camel"):
    """A contact as Brevo would hold it in the end."""

    ext_id: str
    email: str | None
    list_ids: tuple[int, ...]
    attributes: tuple[Fact, ...]


class Tracked(Struct, frozen=True):
    """An event Brevo would be told of."""

    id: str
    contact: str  # ext_id
    name: str
    time: str
    properties: Mapping[str, Any]
    held: bool  # it waits 10 s for what else is heard, because something is missing in it


class Untold(Struct, frozen=True):
    """A domain event Brevo is not told of, or not yet."""

    id: str
    why: str


class Ignored(Struct, frozen=True):
    """Raw events of which no event is made, and how many."""

    type: str
    why: str
    count: int


class Preview(Struct, frozen=True):
    """What follows from the events."""

    heard: int  # raw events
    contacts: tuple[Contact, ...]  # by ext_id
    events: tuple[Tracked, ...]  # by time, then id
    waiting: tuple[Untold, ...]
    dropped: tuple[Untold, ...]
    ignored: tuple[Ignored, ...]


def preview(events: Sequence[RawEvent], policy: Policy) -> Preview:
    """Fold them in the order they happened, as if each were heard then, and wait for what may come out of order."""
    ignored: Counter[tuple[str, str]] = Counter()
    made = _Said()
    book = Book(None)
    now_ms = 0
    try:
        for event in sorted(events, key=lambda event: (event.time_ms, event.id)):
            if (heard := _heard(event, policy, ignored)) is not None:
                now_ms = max(now_ms, heard.time_ms)
                _wait(book, policy, made, until_ms=now_ms)
                made.note(take(book, [(heard, "")], policy, now_ms=now_ms, sequence=1), held=False)
        _wait(book, policy, made, until_ms=now_ms + HOLD_MS)
        interactions = list(book.interactions())
    finally:
        book.close()
    return Preview(
        heard=len(events),
        contacts=tuple(_contact(made.contacts[id_], policy) for id_ in sorted(made.contacts)),
        events=tuple(
            Tracked(one.id, one.ext_id, one.name, one.time, one.properties, held)
            for one, held in sorted(made.tracks, key=lambda track: (track[0].time, track[0].id))
        ),
        waiting=tuple(sorted(_waiting(interactions), key=lambda one: one.id)),
        dropped=tuple(sorted(_dropped(interactions, made, policy), key=lambda one: one.id)),
        ignored=tuple(Ignored(type_, why, count) for (type_, why), count in sorted(ignored.items())),
    )


class _Said(Struct):
    """What came out of the folds so far."""

    contacts: dict[str, ContactUpsert] = {}
    tracks: list[tuple[EventTrack, bool]] = []  # each with whether it was held
    nobody: list[str] = []  # ids of commands given up

    def note(self, made: Made, *, held: bool) -> None:
        self.nobody += made.nobody
        for command, _ in made.commands:
            match command:
                case ContactUpsert():
                    self.contacts[command.ext_id] = command
                case EventTrack():
                    self.tracks.append((command, held))
                case ContactRelink():  # its name is another from now on; an upsert follows
                    self.contacts.pop(command.was, None)
                    self.tracks = [
                        (msgspec.structs.replace(one, ext_id=command.ext_id), was_held)
                        if one.ext_id == command.was else (one, was_held)
                        for one, was_held in self.tracks
                    ]  # fmt: skip


def _wait(book: Book, policy: Policy, made: _Said, *, until_ms: int) -> None:
    while book.is_due(until_ms):
        made.note(look(book, policy, now_ms=until_ms), held=True)


def _heard(event: RawEvent, policy: Policy, ignored: Counter[tuple[str, str]]) -> Heard | None:
    """What the event says; what makes no event of it is counted."""
    try:
        heard = read(event, policy.reading)
    except UnreadableError as error:
        ignored[event.type, f"cannot be read, so it becomes a dead letter: {error}"] += 1
        return None
    if heard is None:
        ignored[event.type, "happens to no customer"] += 1
    elif not heard.links:
        ignored[event.type, "names no task, conversation or call"] += 1
        return None
    elif heard.type not in policy.tells:
        ignored[heard.type, _switched_off(heard.type, policy)] += 1
    return heard


def _switched_off(type_: str, policy: Policy) -> str:
    if type_ in policy.config.rules:
        return "its kind is switched off under sync; it counts for attributes"
    return "no rule of event_mapping tells of it; it counts for attributes"


def _contact(upsert: ContactUpsert, policy: Policy) -> Contact:
    sources = {field.attribute: source for source, field in policy.config.fields.items()}
    return Contact(
        upsert.ext_id,
        upsert.email,
        upsert.list_ids,
        tuple(Fact(name, value, sources.get(name, "")) for name, value in upsert.attributes.items()),
    )


def _waiting(interactions: Sequence[Interaction]) -> list[Untold]:
    return [
        Untold(
            named(one, key),
            "nobody knows on which channel it was" if one.anchor
            else "nobody knows whose it is: it waits up to 30 days for a mail or a phone",
        )
        for one in interactions for key in one.waiting
    ]  # fmt: skip


def _dropped(interactions: Sequence[Interaction], made: _Said, policy: Policy) -> list[Untold]:
    """What an interaction has let go without an event: by its channel, by its rule's `when`, or because nobody came."""
    sent = {track.id.rpartition("/")[0] for track, _ in made.tracks}  # a command is named after its cause
    given_up = {id_.rpartition("/")[0] for id_ in made.nobody}
    found = []
    for one in interactions:
        for key in one.told:
            causes = {key, *(f"{link}/{key}" for link in one.links)}  # it may have been named otherwise then
            if not causes & sent:
                why = "nobody came within 30 days" if causes & given_up else _why_dropped(one, policy)
                found.append(Untold(named(one, key), why))
    return found


def _why_dropped(one: Interaction, policy: Policy) -> str:
    if one.only_a_survey or one.channel in policy.config.flex.channels:
        return "its rule's `when` does not hold"
    return f"its channel is {one.channel}, which is not among `channels`"
