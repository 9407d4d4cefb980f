"""`tajo replay`: ask the mapper to plan the past anew, have it do a plan, and watch it.  What it plans stands in plans."""

import asyncio
import gzip
import io
import secrets
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

from shared import replay
from shared.replay import Asked, Expected, Plan, Replay
from shared.topology import PLANS, REPLAYS
from tajo import deployment
from tajo.broker import connected

LOOK_S = 0.25  # between looks how far it is
AWAY_TRIES = 300  # to reach a broker that went away, 0.2 s apart
TRIES_MAX = 20  # of a write that somebody else's came before
OBJECT_S = 300.0  # a plan of a gigabyte, from a broker far away
AGAIN_MAX = 100_000  # contacts told again because Brevo holds something else: 4 MB of ext_ids in one value

OnLook = Callable[[Replay], None]


class ReplayError(Exception):
    """A replay that cannot be had or done: why, and what to do."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


def new_id(now_ms: int) -> str:
    """What a replay asked for now is called: sorts by time, and two asked for at once have two."""
    return f"{datetime.fromtimestamp(now_ms / 1000, UTC):%Y%m%dT%H%M%SZ}{secrets.token_hex(2)}"


# -- asking and watching ------------------------------------------------------------------------------------


async def ask(url: str, asked: Asked) -> None:
    """Have this planned.  Raises nats' errors and OSError."""
    async with _bucket(url) as bucket:
        await replay.write(bucket, Replay(asked=asked), 0)


async def ask_again(url: str, id_: str, again: tuple[str, ...]) -> None:
    """Have the same planned anew, in the book it has, with these contacts told again.  Raises ReplayError."""
    if len(again) > AGAIN_MAX:
        raise ReplayError(
            f"{len(again):,} contacts at Brevo are not as they were told: more than {AGAIN_MAX:,}",
            "is that the account? BREVO_API_KEY says which; else make a plan with --since, which tells all again",
        )

    def change(now: Replay | None) -> Replay | None:
        found = _known(now, id_)
        if found.state != "planned":
            raise ReplayError(f"{id_} is {found.state} meanwhile", "run the same command again")
        asked = msgspec.structs.replace(found.asked, again=again, expected=False)
        return msgspec.structs.replace(found, asked=asked, state="asked", plan="", apply="")

    async with _bucket(url) as bucket:
        await _change(bucket, id_, change)


async def watch(url: str, id_: str, until: tuple[replay.State, ...], on_look: OnLook) -> Replay:
    """Return it once it is in one of these states.  Raises ReplayError where it comes to nothing, nats' errors and OSError.

    A broker that goes away meanwhile is waited for, AWAY_TRIES tries long.
    """
    async with connected(url) as connection:
        # To begin with there were few: is it there at all?
        connection.options["max_reconnect_attempts"] = AWAY_TRIES
        bucket = await connection.jetstream(timeout=2).key_value(REPLAYS.name)
        while True:
            try:
                now = _known((await replay.read(bucket, id_))[1], id_)
            except (nats.errors.Error, OSError):
                if connection.is_closed:
                    raise
            else:
                on_look(now)
                if now.state in until and (now.plan or now.state != "refused"):  # else nothing was planned
                    return now
                if now.ended:
                    raise _came_to_nothing(now)
            await asyncio.sleep(LOOK_S)


async def apply(url: str, plan: Plan) -> bool:
    """Have this plan done; whether that was not said before.  Raises ReplayError, nats' errors and OSError."""
    async with _bucket(url) as bucket:
        return await _change(bucket, plan.id, lambda now: to_apply(_known(now, plan.id), plan))


def to_apply(now: Replay, plan: Plan) -> Replay | None:
    """What is to be written so that the plan is done; None where that is said.  Pure; raises ReplayError."""
    if now.state in ("asked", "folding"):
        raise ReplayError(
            f"{plan.id} is being planned again",
            f"tajo replay --plan --id {plan.id} watches it, and writes it",
        )
    if now.state in ("failed", "dropped"):
        raise _came_to_nothing(now)
    made = plan.hash
    if now.plan != made:
        raise ReplayError(
            f"this is not the plan that the mapper made as {plan.id}: it was changed, or made anew since",
            f"tajo replay --plan --id {plan.id} writes the mapper's",
        )
    if now.state == "refused":  # what was in the way may be mended
        return msgspec.structs.replace(now, state="planned", apply=made, why="")
    return None if now.apply == made else msgspec.structs.replace(now, apply=made)


async def find(url: str, id_: str) -> Replay:
    """How far it is.  Raises ReplayError, nats' errors and OSError."""
    async with _bucket(url) as bucket:
        return _known((await replay.read(bucket, id_))[1], id_)


async def listed(url: str) -> list[Replay]:
    """All there are, the latest first.  Raises nats' errors and OSError."""
    async with connected(url) as connection:
        return await _all(connection)


async def drop(url: str, id_: str) -> bool:
    """Have its book deleted, or that which it replaced where its own is in force; and delete its plan.  Whether it is in force.

    Again changes nothing.  Raises ReplayError, nats' errors and OSError.  The order: it is said first; a plan that stays
    after a crash is deleted by the same again, or after 30 days.
    """

    def change(now: Replay | None) -> Replay | None:
        found = _known(now, id_)
        if found.state == "applying":
            raise ReplayError(f"{id_} is being applied", "wait until it is; `tajo replay --list` shows it")
        return None if found.state == "dropped" else msgspec.structs.replace(found, state="dropped")

    async with connected(url) as connection:
        bucket = await connection.jetstream(timeout=2).key_value(REPLAYS.name)
        await _change(bucket, id_, change)
        store = await _store(connection)
        for name in (id_, _expected(id_)):
            with suppress(nats.js.errors.NotFoundError):
                await store.delete(name)
        return id_ == in_force(await _all(connection))


def in_force(known: Iterable[Replay]) -> str:
    """The id of the one applied last; an empty text where none was.  Pure."""
    return max(((one.applied_ms, one.asked.id) for one in known if one.applied_ms), default=(0, ""))[1]


# -- what was planned ---------------------------------------------------------------------------------------


async def planned(url: str, made: Replay) -> Plan:
    """The plan that the mapper made.  Raises ReplayError, nats' errors and OSError."""
    body = await _object(url, made.asked.id)
    try:
        plan = replay.from_object(body)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ReplayError(
            "the mapper's plan cannot be read", "is it of this version? `tajo connectors status` says"
        ) from error
    if plan.hash != made.plan:
        raise ReplayError(f"{made.asked.id} was planned again meanwhile", "run the same command again")
    return plan


async def expected(url: str, id_: str) -> bytes:
    """What Brevo shall hold of each customer, for `customers` to read.  Raises ReplayError, nats' errors and OSError."""
    return await _object(url, _expected(id_))


def customers(body: bytes) -> Iterator[Expected]:
    """One after another, by ext_id, so that memory holds one of them.  Pure."""
    decode = msgspec.json.Decoder(Expected).decode
    return (decode(line) for line in gzip.GzipFile(fileobj=io.BytesIO(body)))


async def _object(url: str, name: str) -> bytes:
    async with connected(url) as connection:
        try:
            async with asyncio.timeout(OBJECT_S):
                return (await (await _store(connection)).get(name)).data or b""
        except nats.js.errors.ObjectNotFoundError as error:
            raise ReplayError(
                f"the plan of {name.partition('.')[0]} is no more", "plans are kept for 30 days: make another"
            ) from error


# -- what they share ----------------------------------------------------------------------------------------


def _expected(id_: str) -> str:
    return f"{id_}.expected"


async def _all(connection: Client) -> list[Replay]:
    entries = await deployment.entries(connection, REPLAYS.name)
    if entries is None:
        raise nats.js.errors.NotFoundError
    found = [msgspec.json.decode(value, type=Replay) for value, _ in entries.values()]
    return sorted(found, key=lambda one: one.asked.id, reverse=True)


async def _store(connection: Client) -> ObjectStore:
    return await connection.jetstream(timeout=5).object_store(PLANS.name)


def _known(now: Replay | None, id_: str) -> Replay:
    if now is None:
        raise ReplayError(
            f"no replay is called {id_} here",
            "`tajo replay --list` shows those there are; TAJO_NATS_URL says where",
        )
    return now


def _came_to_nothing(now: Replay) -> ReplayError:
    """Also where it says why, there may be nothing to do but to begin anew."""
    remedy = {
        "refused": "once that is mended, the same command again does it",
        "dropped": "somebody dropped it: make another",
    }.get(now.state, "make another")
    return ReplayError(f"{now.asked.id} is {now.state}{f': {now.why}' if now.why else ''}", remedy)


async def _change(bucket: KeyValue, id_: str, change: Callable[[Replay | None], Replay | None]) -> bool:
    """Write what `change` makes of it, if anything, over exactly that; whether anything was."""
    for _ in range(TRIES_MAX):
        revision, now = await replay.read(bucket, id_)
        wanted = change(now)
        if wanted is None:
            return False
        try:
            await replay.write(bucket, wanted, revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            continue
        return True
    raise TimeoutError(f"the mapper wrote {id_} {TRIES_MAX} times while we tried to")


@asynccontextmanager
async def _bucket(url: str) -> AsyncIterator[KeyValue]:
    async with connected(url) as connection:
        yield await connection.jetstream(timeout=2).key_value(REPLAYS.name)
