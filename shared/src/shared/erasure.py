"""Erasures: who shall be forgotten, and how far that is, in the bucket `erasures`.  No name, mail, phone or sid stands there.

`key`                  32 random bytes, made by the first erasure: what all hashes are keyed with
`asked.<id>`           whoever wants one writes it (`tajo forget`), in keyed hashes
`tombstone.<id>`       the mapper's: what is left of them (shared/tombstone.py), for ever
`done.<id>.<service>[.<instance>]`   what each service has erased, written by that service alone

Each service does its part by itself: the mapper in log, dead letters, quarantine and book, and says `contact.delete`; the
sink at Brevo, in BREVO, RECEIPTS and ledger; ingest in its spool.  What each does may be repeated after a crash.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec
import nats.errors
import nats.js.errors
import structlog
from msgspec import Struct
from nats.aio.client import Client
from nats.js.kv import KeyValue

from shared import kv
from shared.publish import NotPublishedError
from shared.tombstone import Tombstone, Tombstones
from shared.topology import ERASURES

KEY = "key"
TIMEOUT_S = 5.0  # of each request
AGAIN_S = 1.0  # while the broker is away
AWAY = (NotPublishedError, nats.errors.Error, nats.js.errors.Error, OSError)  # what its being away is

_NOT_THERE = (10037, 10043)  # https://github.com/nats-io/nats-server/blob/main/server/errors.json


log = structlog.get_logger()


class Asked(Struct, frozen=True, kw_only=True):
    """Somebody shall be forgotten."""

    id: str
    whom: tuple[bytes, ...]  # keyed hashes of what was given: any of them may be who is meant
    asked_ms: int


class Count(Struct, frozen=True, kw_only=True):
    """What a place held of them."""

    where: str  # "TWILIO", "book: interactions", …
    found: int
    erased: int


class Done(Struct, frozen=True, kw_only=True):
    """What one service has erased.  While `whole` is false it is not done yet."""

    service: str
    instance: str = ""
    whole: bool = False
    at_ms: int = 0  # when it was done
    counts: tuple[Count, ...] = ()
    notes: tuple[str, ...] = ()  # what was left, and why
    deletes: tuple[bytes, ...] = ()  # the mapper's: hashes of the ids of its contact.delete commands
    position: int = 0  # the sink's: up to there in BREVO what was said of them is forgotten


class Erasure(Struct, kw_only=True):
    """One, as far as it is."""

    asked: Asked
    tombstone: Tombstone | None = None
    done: list[Done] = []

    def of(self, service: str, instance: str = "") -> Done | None:
        """What a service has done."""
        found = (one for one in self.done if (one.service, one.instance) == (service, instance))
        return next(found, None)


class Erasures(Struct, kw_only=True):
    """All that stands in the bucket."""

    key: bytes = b""
    ones: dict[str, Erasure] = {}

    def tombstones(self) -> Tombstones:
        """In force."""
        return Tombstones(self.key, [one.tombstone for one in self.ones.values() if one.tombstone])

    def forgotten(self) -> Tombstones:
        """The same with positions of BREVO for times, where the sink has said them."""
        ones = [(one.tombstone, one.of("brevo-sink")) for one in self.ones.values()]
        return Tombstones(
            self.key,
            [
                msgspec.structs.replace(stone, at_ms=done.position)
                for stone, done in ones
                if stone and done and done.position
            ],
        )


async def load(connection: Client) -> Erasures:
    """Read all.  Raises nats' errors."""
    bucket = await _bucket(connection)
    found = Erasures()
    keys = await kv.keys(connection, ERASURES.name)
    for key in sorted(keys):  # asked before done before tombstone
        _, value = await kv.read(bucket, key)
        word, _, rest = key.partition(".")
        id_ = rest.partition(".")[0]
        if word == KEY:
            found.key = value
        elif word == "asked":
            found.ones[id_] = Erasure(asked=msgspec.msgpack.decode(value, type=Asked))
        elif word == "done" and id_ in found.ones:
            found.ones[id_].done.append(msgspec.msgpack.decode(value, type=Done))
        elif word == "tombstone" and id_ in found.ones:
            found.ones[id_].tombstone = msgspec.msgpack.decode(value, type=Tombstone)
    return found


async def until_read(read: Callable[[], Awaitable[None]]) -> None:
    """Do what reads them, until it could: nothing may be heard before."""
    while True:
        try:
            return await read()
        except AWAY as error:
            log.debug("erasures_not_read", error=type(error).__name__)
        await asyncio.sleep(AGAIN_S)


async def revision(connection: Client) -> int:
    """Changes whenever something in the bucket does.  Raises nats' errors."""
    info = await connection.jetstream(timeout=TIMEOUT_S).stream_info(f"KV_{ERASURES.name}")
    return int(info.state.last_seq)


async def key(connection: Client) -> bytes:
    """The key of all hashes, made where there is none yet.  Raises nats' errors."""
    bucket = await _bucket(connection)
    with suppress(nats.js.errors.KeyWrongLastSequenceError):
        await bucket.create(KEY, secrets.token_bytes(32))
    return (await kv.read(bucket, KEY))[1]


async def ask(connection: Client, one: Asked) -> None:
    """Want one.  Raises nats' errors."""
    await (await _bucket(connection)).put(f"asked.{one.id}", msgspec.msgpack.encode(one))


async def bury(connection: Client, one: Tombstone) -> None:
    """Put a tombstone in force.  Raises nats' errors; the bucket may be full."""
    await (await _bucket(connection)).put(f"tombstone.{one.erasure}", msgspec.msgpack.encode(one))


async def tell(connection: Client, id_: str, done: Done) -> None:
    """Say what was done.  Raises nats' errors."""
    instance = f".{done.instance}" if done.instance else ""
    await (await _bucket(connection)).put(
        f"done.{id_}.{done.service}{instance}", msgspec.msgpack.encode(done)
    )


async def erase(connection: Client, stream: str, sequences: Sequence[int]) -> None:
    """Overwrite these messages on disk.  One that is not there any more is none.  Raises nats' errors.

    JetStream does so unless told otherwise:
    https://github.com/nats-io/nats-server/blob/main/server/jetstream_api.go JSApiMsgDeleteRequest.NoErase
    """
    jetstream = connection.jetstream(timeout=TIMEOUT_S)
    for sequence in sequences:
        try:
            await jetstream.delete_msg(stream, sequence)
        except nats.js.errors.APIError as error:
            if error.err_code not in _NOT_THERE:
                raise


async def _bucket(connection: Client) -> KeyValue:
    return await connection.jetstream(timeout=TIMEOUT_S).key_value(ERASURES.name)


class Watch:
    """The tombstones in force, for who only must not let anything of them in."""

    def __init__(self) -> None:
        self.all = Erasures()
        self.tombstones = Tombstones()
        self._seen = -1

    async def look(self, connection: Client) -> bool:
        """Know what stands in the bucket now; whether that is new.  Raises nats' errors."""
        if (now := await revision(connection)) == self._seen:
            return False
        self.all = await load(connection)
        self.tombstones, self._seen = self.all.tombstones(), now
        return True


class Certificate(Struct, frozen=True, kw_only=True):
    """What became of an erasure."""

    id: str
    asked: str  # RFC 3339
    until: str  # what happened up to then is forgotten
    done: str
    counts: tuple[Count, ...]
    notes: tuple[str, ...]
    unreached: tuple[str, ...]
    hash: str = ""  # of all the rest

    def sealed(self) -> "Certificate":
        """With its hash."""
        bare = msgspec.structs.replace(self, hash="")
        whole = hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()
        return msgspec.structs.replace(bare, hash=whole)
