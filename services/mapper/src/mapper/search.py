"""Looking through streams for what is somebody's, whichever shape it has there."""

from collections.abc import AsyncIterator, Callable
from functools import partial

from faststream.nats import NatsBroker
from msgspec import Struct
from nats.aio.msg import Msg

from mapper.heard import Heard, UnreadableError, read
from mapper.said import Reading
from shared.event import RawEvent, from_message
from shared.past import past
from shared.tombstone import Tombstones, entity, names_in, theirs
from shared.topology import DEAD, QUARANTINE, TWILIO

OTHERS = (DEAD.name, QUARANTINE.name)

Has = Callable[[str, int], bool]
"""Whether a name was theirs at a time (epoch milliseconds)."""


class Found(Struct):
    """What of them stands in streams."""

    sequences: dict[str, list[int]] = {}  # by stream
    names: set[str] = set()  # what their raw events are called, and name
    links: set[str] = set()  # of these, those that name interactions
    last_ms: int = 0  # when the last of their raw events happened
    to: int = 0  # of TWILIO, how far was looked


def names_of(event: RawEvent, heard: Heard | None) -> set[str]:
    """What a raw event is called, and whom and what it names; of one that says nothing of an interaction, all it holds.

    Also of a snapshot: it is told to nobody, and holds who waits.
    """
    if heard is None or not heard.links:
        return {event.id, event.subject} | names_in(event.body)
    return {
        name
        for name in (event.id, entity(heard.identity), heard.task, heard.conversation, *heard.links)
        if name
    } | {f"{kind}:{value}" for kind, value in heard.identifiers.items()}  # fmt: skip


def is_forgotten(tombstones: Tombstones, event: RawEvent, heard: Heard | None) -> bool:
    """Whether it happened to somebody before they were forgotten."""
    return bool(tombstones) and theirs(
        names_of(event, heard), lambda name: tombstones.cover((name,), event.time_ms)
    )


class Read(Struct, frozen=True):
    """What a message of TWILIO names."""

    names: set[str]  # by which it may be theirs
    called: set[str]  # of these, what is theirs alone once it is: it is covered when it comes again
    links: set[str]  # what names the interaction
    ms: int  # when it happened


def read_names(message: Msg, reading: Reading) -> Read:
    """Read one.  What nobody can read may hold sids of everybody: only its own id is its own."""
    headers = message.headers or {}
    try:
        event = from_message(message.subject, headers, message.data)
    except ValueError:
        return Read(names_in(message.data), set(), set(), 0)
    try:
        heard = read(event, reading)
    except UnreadableError:
        heard = None
    names = names_of(event, heard)
    if heard is None or not heard.links:
        return Read(names, {event.id}, set(), event.time_ms)
    called = {name for name in names if not name.startswith("phone:")}  # a phone may be several people's
    return Read(names, called, set(heard.links), event.time_ms)


async def log(broker: NatsBroker, reading: Reading, has: Has, *, after: int, to: int) -> Found:
    """Their raw events with after < sequence <= to.  A minute for a million."""
    found = Found({TWILIO.name: []}, to=to)
    async for messages in past(broker, TWILIO.name, after=after, to=to, batch=500):
        for message in messages:
            one = read_names(message, reading)
            if theirs(one.names, partial(_at, has, one.ms)):
                found.sequences[TWILIO.name].append(message.metadata.sequence.stream)
                found.names |= one.called
                found.links |= one.links
                found.last_ms = max(found.last_ms, one.ms)
    return found


def _at(has: Has, ms: int, name: str) -> bool:
    return has(name, ms)


async def letters(broker: NatsBroker, has: Has, ends: AsyncIterator[tuple[str, int]]) -> dict[str, list[int]]:
    """Their dead letters and what of them stands in quarantine; `ends` says how far to look."""
    found: dict[str, list[int]] = {}
    async for stream, to in ends:
        found[stream] = []
        async for messages in past(broker, stream, after=0, to=to, batch=500):
            for message in messages:
                whole = b"\n".join((message.data, *(v.encode() for v in (message.headers or {}).values())))
                if theirs(names_in(whole), lambda name: has(name, 0)):
                    found[stream].append(message.metadata.sequence.stream)
    return found
