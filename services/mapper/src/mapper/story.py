"""A story: a mapping, what was heard, and what Brevo shall then know.  People keep them for their own mapping.

A folder with `mapping.yaml` (a connector file), `given.ndjson` (CloudEvents in JSON, one a line, in the order
heard) and `then.json` (contacts and events).
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from mapper.book import Book
from mapper.heard import read
from mapper.step import KEEP_MS, Policy
from mapper.take import look, take
from shared.command import ContactRelink, ContactUpsert, EventTrack, Value
from shared.config import Config
from shared.event import RawEvent, epoch_ms


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


def given(lines: bytes) -> list[RawEvent]:
    """The events of a `given.ndjson`.  `data` is the body: an object for JSON, a text for a form."""
    return [_event(msgspec.json.decode(line)) for line in lines.splitlines() if line.strip()]


def _event(cloud: dict[str, Any]) -> RawEvent:
    _, _, product, type_ = cloud["type"].split(".", 3)
    data = cloud["data"]
    return RawEvent(
        id=cloud["id"],
        product=product,
        type=type_,
        source=cloud["source"],
        subject=cloud["subject"],
        account_sid=cloud.get("accountsid", "AC00000000000000000000000000000000"),
        time_ms=epoch_ms(cloud["time"]),
        content_type=cloud.get("datacontenttype", "application/json"),
        body=data.encode() if isinstance(data, str) else msgspec.json.encode(data),
    )


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
