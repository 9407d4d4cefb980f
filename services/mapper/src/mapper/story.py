"""A story: a mapping, what was heard, and what Brevo shall then know.  People keep them for their own mapping.

A folder with `mapping.yaml` (a connector file), `given.ndjson` (CloudEvents in JSON, one a line, in the order
heard) and `then.json` (contacts and events).
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from mapper.book import Book
from mapper.heard import read
from mapper.step import KEEP_MS, Policy
from mapper.take import look, take
from shared.cloudevent import event_of, from_line
from shared.command import ContactRelink, ContactUpsert, EventTrack, Value
from shared.config import Config
from shared.event import RawEvent

NO_ACCOUNT = f"AC{0:032}"  # where a line names none
SHUFFLES = 5  # orders a story is heard in, beside its own


class Contact(Struct, omit_defaults=True):
    """A contact as Brevo holds it at the end."""

    email: str | None = None
    attributes: dict[str, Value] = {}
    list_ids: tuple[int, ...] = ()


class Event(Struct, omit_defaults=True):
    """An event Brevo was told of."""

    id: str
    contact: str  # ext_id
    name: str
    time: str
    properties: dict[str, Any] = {}


class Then(Struct):
    """What Brevo knows at the end; events by time, then id."""

    contacts: dict[str, Contact]  # by ext_id
    events: list[Event]
    given_up: list[str] = []  # ids of events whose customer never came


class BadStoryError(ValueError):
    """What is wrong with a story's file, and in which line."""


def given(lines: bytes) -> list[RawEvent]:
    """The events of a `given.ndjson`: CloudEvents as `tajo log export` writes them.  Raises BadStoryError."""
    events = []
    for number, line in enumerate(lines.split(b"\n"), start=1):
        if line.strip():
            try:
                events.append(event_of(from_line(line, account_sid=NO_ACCOUNT)))
            except ValueError as error:
                raise BadStoryError(f"given.ndjson:{number}: {error}") from error
    return events


def then_of(text: bytes) -> Then:
    """What stands in a `then.json`.  Raises BadStoryError."""
    try:
        return msgspec.json.decode(text, type=Then)
    except msgspec.MsgspecError as error:
        raise BadStoryError(f"then.json: {error}") from error


def to_json(told: Then) -> bytes:
    """As it stands in a `then.json`."""
    return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"


class Failure(Struct, frozen=True):
    """A way of hearing a story in which it does not end as written: what was expected, and what came."""

    way: str
    expected: str
    found: str


def run(config: Config, heard: Sequence[RawEvent], then: Then) -> list[Failure]:
    """Hear a story in its order, all of it twice, and shuffled; say where it does not end as written.

    An event's optional properties are what was known when it was sent, so they are compared in the first two only.
    """
    doubled = [event for event in heard for _ in range(2)]
    failures = [
        Failure(way, to_json(then).decode(), to_json(told).decode())
        for way, told in (
            ("in the order given", tell(config, heard)),
            ("with each event heard twice", tell(config, doubled)),
        )
        if told != then
    ]
    for seed in range(SHUFFLES):
        random.Random(seed).shuffle(shuffled := [*heard, *heard])  # noqa: S311 - the same each time
        told = tell(config, shuffled, batch=4**seed)
        if (found := _in_any_order(told)) != (expected := _in_any_order(then)):
            failures.append(Failure(f"shuffled, order {seed + 1}", expected, found))
    return failures


def _in_any_order(then: Then) -> str:
    """The part of an end that no order of hearing changes."""
    events = sorted((event.id, event.name) for event in then.events)
    part = {"contacts": then.contacts, "events": events, "given_up": then.given_up}
    return msgspec.json.format(msgspec.json.encode(part, order="sorted"), indent=2).decode()


def tell(
    config: Config, heard: Iterable[RawEvent], *, batch: int = 1, start_ms: int = 0, into: Book | None = None
) -> Then:
    """Map what was heard, `batch` at a time and all at one moment, and wait until nothing waits any more."""
    book, policy = into or Book(None), Policy.of(config)
    then, now_ms = Then({}, []), start_ms
    read_ones = [(one, "") for event in heard if (one := read(event, policy.reading)) and one.links]
    for number in range(0, len(read_ones), batch):
        _note(
            then,
            take(book, read_ones[number : number + batch], policy, now_ms=now_ms, sequence=number + batch),
        )
    for moment in (now_ms + 60_000, now_ms + KEEP_MS):
        while book.is_due(moment):
            _note(then, look(book, policy, now_ms=moment))
    if into is None:
        book.close()
    then.events.sort(key=lambda event: (event.time, event.id))
    then.given_up.sort()
    return then


def _note(then: Then, made: Any) -> None:
    for command, _ in made.commands:
        if isinstance(command, ContactUpsert):
            then.contacts[command.ext_id] = Contact(command.email, command.attributes, command.list_ids)
        elif isinstance(command, ContactRelink):
            then.contacts.pop(command.was, None)  # its name at Brevo is another; an upsert follows
            for event in then.events:
                event.contact = command.ext_id if event.contact == command.was else event.contact
        elif isinstance(command, EventTrack):
            then.events.append(
                Event(command.id, command.ext_id, command.name, command.time, dict(command.properties))
            )
    then.given_up += made.nobody
