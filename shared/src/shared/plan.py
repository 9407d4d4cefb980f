"""Plans of replays: what is asked, and what doing it would tell Brevo.  Pure."""

import hashlib
import zlib
from typing import Literal

import msgspec
from msgspec import Struct

from shared.command import Value


class Selection(Struct, frozen=True, kw_only=True):
    """Raw events; the customers they are about are told again though nothing changed.  All that is given must fit."""

    subjects: tuple[str, ...] = ()  # of TWILIO, with NATS wildcards
    since_ms: int | None = None  # by when it happened, epoch milliseconds, inclusive
    until_ms: int | None = None  # exclusive
    first: int = 0  # sequences of TWILIO, inclusive; 0: no bound
    last: int = 0
    tasks: tuple[str, ...] = ()  # sids that name interactions: tasks, conversations
    customers: tuple[str, ...] = ()  # as `tajo customer show` finds them; the mapper puts their ext_ids here

    @property
    def empty(self) -> bool:
        """Nobody is told again."""
        return self == Selection()


class Asked(Struct, frozen=True, kw_only=True):
    """What somebody wants to be planned."""

    id: str  # names the replay, its plan and its book: letters and digits
    mapping: str  # the connector file, as text
    selection: Selection = Selection()
    again: tuple[
        str, ...
    ] = ()  # ext_ids told again whatever the selection says: Brevo was found to hold something else
    send_old_events: bool = False  # also those that happened longer ago than `event_age_max_s`
    event_age_max_s: float = 3600.0
    expected: bool = False  # also say what Brevo shall hold of each customer: the object `<id>.expected`
    at_ms: int  # epoch milliseconds: what is old is counted from here


Contacted = Literal["create", "change", "again", "keep", "leave"]
"""create: Brevo was never told of it; change: it was told something else; again: told the same, because it was selected;
keep: it was told more than it would be now, which stays, and nothing is told;
leave: Brevo was told of it, and under this mapping there is no such customer: nothing is told, the contact stays."""

Tracked = Literal["send", "suppress", "sent"]
"""send: it will be; suppress: it is older than `event_age_max_s`; sent: Brevo has it, and this mapping would not send it."""


class ContactLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a plan does to one contact.  Values are (before, after); None: not told."""

    ext_id: str
    action: Contacted
    was: tuple[str, ...] = ()  # its names at Brevo so far, where it is named anew; several become one
    email: tuple[str | None, str | None] | None = None  # where it changes
    attributes: dict[str, tuple[Value | None, Value | None]] = {}  # those that change
    kept: dict[str, Value] = {}  # no longer told, and kept by Brevo, "email" too: nothing is ever cleared
    lists: tuple[int, ...] = ()  # joined
    lists_kept: tuple[int, ...] = ()  # no longer told, and not left
    conflicts: tuple[str, ...] = ()  # "email" or "SMS": another contact, that stays, was told the same


class EventLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a plan does with one event."""

    id: str
    ext_id: str  # what is `sent` and left BREVO long ago has an empty one where nobody knows it
    name: str  # and is called by its domain event type
    time: str  # RFC 3339; empty then
    action: Tracked


class Summary(Struct, frozen=True, kw_only=True):
    """How many of each."""

    customers: int = 0  # all there are under the mapping
    create: int = 0
    change: int = 0
    again: int = 0
    keep: int = 0
    leave: int = 0
    unchanged: int = 0
    relinks: int = 0
    conflicts: int = 0
    lists: int = 0  # memberships
    send: int = 0
    suppress: int = 0
    sent: int = 0


class Plan(Struct, frozen=True, kw_only=True):
    """What a replay will do, pinned to a sequence of the log and a mapping.  It holds what customers are called."""

    id: str
    mapping: str  # hash
    mapping_before: str  # hash of the mapping in force when it was made
    sequence: int  # of TWILIO
    asked: Asked
    summary: Summary
    contacts: tuple[ContactLine, ...]  # by ext_id
    events: tuple[EventLine, ...]  # by time, then id
    format: int = 1

    @property
    def hash(self) -> str:
        """Equal plans have equal hashes."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:16]


def to_object(plan: Plan) -> bytes:
    """As it stands in the object store, under the replay's id."""
    return zlib.compress(msgspec.json.encode(plan, order="deterministic"))


def from_object(body: bytes) -> Plan:
    """The plan of an object.  Raises zlib.error and msgspec.MsgspecError, which names a path and no value."""
    return msgspec.json.decode(zlib.decompress(body), type=Plan)


class Expected(Struct, frozen=True, kw_only=True):
    """What Brevo shall hold of one customer, and the events it was or will be told.

    The object `<id>.expected` has one a line, by ext_id: JSON, the whole compressed with gzip.
    """

    ext_id: str
    email: str | None = None
    attributes: dict[str, Value] = {}
    list_ids: tuple[int, ...] = ()
    events: tuple[tuple[str, str, str], ...] = ()  # (id, name, time)
