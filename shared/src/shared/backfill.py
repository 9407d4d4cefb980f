"""Backfills: what of the past the poller shall read, a key for each resource in the bucket `backfills`.

Whoever wants one writes it (`tajo connectors sync`, `TajoClient`); the poller works on it and writes how far it is.
Both name the revision they saw, so neither overwrites what the other said.  Until a window is stored the position does
not move, so a poller that is killed reads it again; what the log has by then is not stored twice.
"""

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec
from msgspec import Struct
from nats.js.kv import KeyValue

from shared import kv
from shared.config import Channel, Resource

State = Literal["waiting", "running", "stopped", "done", "failed"]

VERIFY = "verify"  # the key of the backfill of `tasks` that `tajo connectors verify` asks for

RESOURCES: tuple[Resource, ...] = get_args(Resource)


class Day(Struct):
    """Tasks created on one day (UTC): those Twilio knows, and how each came into the log."""

    known: int = 0
    told: int = 0  # by a webhook
    found: int = 0  # by the poller, before this backfill
    fetched: int = 0  # by this backfill: nobody had them


class Count(Struct):
    """What was read."""

    read: int = 0  # items of Twilio's lists
    missed: int = 0  # of these, what is in the log only now
    unreadable: int = 0  # of these, what is a dead letter
    days: dict[str, Day] = {}  # YYYY-MM-DD; of the resource `tasks`

    def add(self, other: "Count") -> None:
        """Count those too."""
        self.read += other.read
        self.missed += other.missed
        self.unreadable += other.unreadable
        for name, day in other.days.items():
            mine = self.days.setdefault(name, Day())
            mine.known += day.known
            mine.told += day.told
            mine.found += day.found
            mine.fetched += day.fetched


class Asked(Struct, frozen=True, kw_only=True):
    """What somebody wants to be read."""

    resource: Resource
    incremental: bool = False  # only what came since the last one that was done
    since_ms: int | None = None  # epoch milliseconds; None: as far as FIRST_MS
    channels: tuple[Channel, ...] = ()  # none: all
    verify: bool = False  # to hold the log against Twilio: beside whatever else is asked of the resource

    @property
    def key(self) -> str:
        """Where it stands in the bucket."""
        return VERIFY if self.verify else self.resource


class Backfill(Struct, kw_only=True):
    """One resource between two moments (epoch milliseconds).  Of what has no past, as it is now."""

    asked: Asked
    since_ms: int
    until_ms: int
    at_ms: int  # all before is stored
    done_ms: int = 0  # up to then an earlier one was done
    state: State = "waiting"
    count: Count = msgspec.field(default_factory=Count)  # of what is stored
    under_way: int = 0  # items read since then
    gone: str = ""  # what of it Twilio no longer has
    why: str = ""  # it failed, or does not go on just now

    @property
    def ended(self) -> bool:
        """Whether the poller will do no more of it unless it is asked again."""
        return self.state in ("stopped", "done", "failed")


FIRST_MS = 29 * 24 * 3600 * 1000  # how far one goes back unless told: TaskRouter keeps events for 30 days


def planned(asked: Asked, last: Backfill | None, *, now_ms: int) -> Backfill:
    """The backfill to do, `last` being the resource's last one.  Pure.

    The same asked again goes on where the last one is.  An incremental one begins where the last one of the same
    channels that was done ended.
    """
    if last and last.asked == asked and last.state != "done":
        return msgspec.structs.replace(last, until_ms=max(now_ms, last.at_ms), state="waiting", why="")
    since_ms = now_ms - FIRST_MS if asked.since_ms is None else min(asked.since_ms, now_ms)
    done_ms = 0
    if last and last.asked.channels == asked.channels:
        whole = last.state == "done" and (
            not last.done_ms or last.since_ms <= last.done_ms
        )  # no gap before it
        done_ms = last.until_ms if whole else last.done_ms
    if asked.incremental:
        since_ms = max(since_ms, done_ms)
    return Backfill(asked=asked, since_ms=since_ms, until_ms=now_ms, at_ms=since_ms, done_ms=done_ms)


async def read(bucket: KeyValue, key: str) -> tuple[int, Backfill | None]:
    """Its revision, and the backfill; None where there never was one.  Raises nats' errors."""
    revision, value = await kv.read(bucket, key)
    return revision, msgspec.json.decode(value, type=Backfill) if value else None


async def write(bucket: KeyValue, backfill: Backfill, revision: int) -> int:
    """Write it over what had that revision; returns its own.  Raises KeyWrongLastSequenceError and nats' errors."""
    return await bucket.update(backfill.asked.key, msgspec.json.encode(backfill), last=revision)


async def read_all(bucket: KeyValue, keys: Iterable[str]) -> list[Backfill]:
    """All there are of these.  Raises nats' errors."""
    found = [(await read(bucket, key))[1] for key in keys]
    return [one for one in found if one]
