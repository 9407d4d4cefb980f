"""A heartbeat: what a service says of itself, to whoever asks how a deployment does.  No names, mails, phones, secrets.

It stands in the bucket `status` under `<service>.<instance>` until a minute after the last.
"""

import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

BEAT_S = 5.0  # between two heartbeats of a process
SILENT_S = 15.0  # three missed: whoever says nothing for so long is not there

Role = Literal["working", "standby"]

_NO_KEY = re.compile(r"[^-_a-zA-Z0-9]+")  # what a machine may be called and a key's token may not


class Heartbeat(Struct, rename="camel", kw_only=True):
    """One process, as it is now."""

    service: str
    instance: str  # the machine and its process; where there is a lease, what holds it
    version: str
    role: Role
    why: str = ""  # it cannot do its work just now; empty when it can
    note: str = ""  # what a person should know though it can
    since: str  # when the process began, RFC 3339
    counts: dict[str, Any] = {}  # one of the structs below


class IngestCounts(Struct, rename="camel"):
    """Since the process began; the spool as it is now."""

    accepted: int = 0  # webhooks answered with 2xx
    refused: int = 0  # webhooks answered with 403: their signature is wrong, or there is none
    unavailable: int = 0  # webhooks answered with anything else
    last_accepted: str | None = None
    spooled: int = 0  # messages
    spooled_bytes: int = 0


class MapperCounts(Struct, rename="camel"):
    """What the book holds; None until it was counted."""

    interactions: int | None = None
    customers: int | None = None
    agents: int | None = None
    sequence: int = 0  # the last of TWILIO that is included
    mapping: str = ""  # hash of the mapping in force
    replays: tuple[str, ...] = ()  # ids of those the mapper works on, or will


class BrevoSinkCounts(Struct, rename="camel"):
    """Commands: those that ended since the process began, and those in hand now."""

    delivered: int = 0
    rejected: int = 0  # dead letters
    in_hand: int = 0
    in_doubt: int = 0
    paused: str = ""  # why nothing is sent until somebody acts, and what to do
    contacts_per_second: float | None = None  # calls that Brevo's limits leave us; None: no limit is known


class PollerCounts(Struct, rename="camel"):
    """Since the process began."""

    last_poll: str | None = None
    read: int = 0
    missed: int = 0  # of these, what no webhook had told
    unreadable: int = 0  # of these, dead letters


def key(service: str, instance: str) -> str:
    """Where the heartbeats of a process stand in the bucket."""
    return f"{service}.{no_key(instance)}"


def no_key(instance: str) -> str:
    """An instance as a key's token may name it."""
    return _NO_KEY.sub("-", instance)


def to_value(beat: Heartbeat) -> bytes:
    """As it stands in the bucket."""
    return msgspec.json.encode(beat)


def from_value(value: bytes) -> Heartbeat:
    """What `to_value` made, of this version or another.  Raises msgspec.MsgspecError."""
    return msgspec.json.decode(value, type=Heartbeat)
