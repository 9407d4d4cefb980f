"""`tajo connectors sync` and `verify`: ask the poller to read the past, and watch it."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar, get_args

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.kv import KeyValue

from shared import backfill
from shared.backfill import RESOURCES, Asked, Backfill
from shared.config import Channel, Resource
from shared.event import epoch_ms, rfc3339
from shared.login import Login
from shared.topology import BACKFILLS
from tajo.broker import connected

LOOK_S = 0.25  # between looks how far it is
AWAY_TRIES = 300  # to reach a broker that went away, 0.2 s apart
FOUNDED_MS = 1_199_145_600_000  # 2008, when Twilio was
TRIES_MAX = 20  # of a write that somebody else's came before
USUAL: tuple[Resource, ...] = ("tasks", "conversations")  # what Brevo is told of

T = TypeVar("T", bound=str)


class WrongWordError(ValueError):
    """A resource, channel, type or date that is none; says which there are."""


def asks(
    *, type_: str, resources: str | Sequence[str] = "", since: str = "", channels: str | Sequence[str] = ""
) -> list[Asked]:
    """What is to be read, from the words of whoever asks: `incremental` or `full`, names, a date or a moment.

    Raises WrongWordError.
    """
    if type_ not in ("incremental", "full"):
        raise WrongWordError(f"{type_} is no type: incremental or full")
    try:
        since_ms = epoch_ms(since) if since else None
    except ValueError:
        raise WrongWordError(f"{since} is no date: write 2024-01-01, or 2024-01-01T08:00:00Z") from None
    now_ms = round(time.time() * 1000)
    if since_ms is not None and not FOUNDED_MS <= since_ms <= now_ms:
        raise WrongWordError(
            f"{since} is {'in the future' if since_ms > now_ms else 'before there was a Twilio'}"
        )
    every_channel = get_args(Channel)
    wanted = _words(channels, every_channel, "channel")
    names = _words(resources, RESOURCES, "resource") if resources else USUAL
    if not names:
        raise WrongWordError(f"no resource is named: there are {', '.join(RESOURCES)}")
    return [
        Asked(
            resource=name, incremental=type_ == "incremental", since_ms=since_ms,
            channels=() if set(wanted) == set(every_channel) else tuple(sorted(wanted)),
        )
        for name in names
    ]  # fmt: skip


def _words(given: str | Sequence[str], known: tuple[T, ...], what: str) -> tuple[T, ...]:
    words = [word.strip() for word in (given.split(",") if isinstance(given, str) else given) if word.strip()]
    for word in words:
        if word not in known:
            raise WrongWordError(f"{word} is no {what}: there are {', '.join(known)}")
    return tuple(one for one in known if one in words)


class BusyError(Exception):
    """Something else is being read of a resource; says what, and what to do."""

    def __init__(self, one: Backfill) -> None:
        asked = one.asked
        since = f" since {rfc3339(asked.since_ms)[:10]}" if asked.since_ms else ""
        of = f" of {', '.join(asked.channels)}" if asked.channels else ""
        super().__init__(
            f"{asked.resource}{of}{since} ({'incremental' if asked.incremental else 'full'}) is being read already: "
            "wait until it is done, or run that command again and stop it with Ctrl-C"
        )


async def sync(
    url: str,
    asked: Sequence[Asked],
    on_look: Callable[[list[Backfill]], None] = lambda _: None,
    *,
    login: Login | None = None,
) -> list[Backfill]:
    """Have these read, and return how each ended.  Cancelled, it stops them; the same again goes on from there.

    Raises BusyError where something else is being read of one, nats' errors and OSError.  A broker that goes away
    meanwhile is waited for, AWAY_TRIES tries long.
    """
    async with connected(url, login) as connection:
        # To begin with there were few: is it there at all?
        connection.options["max_reconnect_attempts"] = AWAY_TRIES
        bucket = await connection.jetstream(timeout=2).key_value(BACKFILLS.name)
        now_ms = round(time.time() * 1000)
        for one in asked:
            await _change(bucket, one.key, partial(_begun, one, now_ms=now_ms))
        wanted = {one.key: one for one in asked}
        try:
            while True:
                looked = await _look(connection, bucket, wanted)
                on_look(looked)
                for found in looked:
                    if found.asked != wanted[found.asked.key]:
                        raise BusyError(found)
                if looked and all(found.ended for found in looked):
                    return looked
                await asyncio.sleep(LOOK_S)
        except asyncio.CancelledError:
            for one in asked:
                await _change(bucket, one.key, partial(_stopped, one))
            on_look(await backfill.read_all(bucket, wanted))
            raise


async def _look(connection: Client, bucket: KeyValue, keys: Iterable[str]) -> list[Backfill]:
    """How far they are; nothing while the broker is away for a moment."""
    try:
        return await backfill.read_all(bucket, keys)
    except (nats.errors.Error, OSError):
        if connection.is_closed:
            raise
        return []


def _begun(asked: Asked, last: Backfill | None, *, now_ms: int) -> Backfill:
    if last and not last.ended and last.asked != asked:
        raise BusyError(last)
    return backfill.planned(asked, last, now_ms=now_ms)


def _stopped(asked: Asked, last: Backfill | None) -> Backfill | None:
    if last and not last.ended and last.asked == asked:
        last.state = "stopped"
        return last
    return None


async def _change(bucket: KeyValue, name: str, change: Callable[[Backfill | None], Backfill | None]) -> None:
    """Write what `change` makes of it, if anything, over exactly that."""
    for _ in range(TRIES_MAX):
        revision, last = await backfill.read(bucket, name)
        wanted = change(last)
        if wanted is None:
            return
        try:
            await backfill.write(bucket, wanted, revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            continue
        return
    raise TimeoutError(f"the poller wrote {name} {TRIES_MAX} times while we tried to")


def share(one: Backfill) -> float:
    """How much of it is done, from 0 to 1."""
    length = one.until_ms - one.since_ms
    return 1.0 if one.state == "done" else max(one.at_ms - one.since_ms, 0) / length if length else 0.0


def told(looked: Iterable[Backfill]) -> list[Mapping[str, Any]]:
    """Each as JSON says it."""
    return [
        {
            "resource": one.asked.resource, "state": one.state, "since": rfc3339(one.since_ms),
            "until": rfc3339(one.until_ms), "read": one.count.read, "new": one.count.missed,
            "unreadable": one.count.unreadable, "gone": one.gone, "why": one.why,
        }
        for one in looked
    ]  # fmt: skip


def days_ago(days: int) -> str:
    """The date so many days before today (UTC)."""
    return f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d}"
