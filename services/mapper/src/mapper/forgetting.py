"""Forgetting somebody: the mapper's part, which is all but Brevo, the ledger and the spool.

The order of effects, and why a crash repeats and never loses.  From 1 to 5 nothing is heard.
  1. log, dead letters and quarantine are searched for what is theirs, and how much that is, is said;
  2. the tombstone is in force: from here on ingest, poller and mapper take nothing of before;
  3. the messages are overwritten on disk;
  4. the book: in one transaction they are taken out, and `contact.delete` is in the outbox;
  5. the outbox is published, the book's file written anew; old books, plans, and what asked for them go;
  6. the sink has done its part; dead letters are searched once more, and it is said that all is done.
Until 2 a crash begins anew.  After it, what is theirs is found by the tombstone, and each step may be repeated: the
book knows which erasures it has had.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client

from mapper import erase, search
from mapper.drop import drop_aside
from mapper.made import Made
from mapper.mapping import Mapping
from mapper.shelf import Shelf
from shared import bus, erasure
from shared.command import ContactDelete
from shared.erasure import Count, Done, Erasure, Erasures
from shared.past import last_sequence
from shared.tombstone import NAMES_MAX, Tombstone, Tombstones, digest, tombstone
from shared.topology import TWILIO

LOOK_S = 1.0  # between looks whether somebody is to be forgotten
AGAIN_S = 1.0  # while the broker is away
SERVICE = "mapper"

log = structlog.get_logger()


class Forgetting:
    """All erasures, as far as they are the mapper's."""

    def __init__(self, broker: NatsBroker, mapping: Mapping, shelf: Shelf) -> None:
        self._broker = broker
        self._mapping = mapping
        self._shelf = shelf
        self._all = Erasures()

    async def begin(self) -> None:
        """Before anything is heard, or rebuilt: know whom not to hear, and bring an old copy of the book up to date."""
        await erasure.until_read(self._load)
        async with self._mapping.alone():
            for one in self._all.ones.values():
                if one.tombstone:
                    mine = one.of(SERVICE)
                    self._take_out(one, one.tombstone, say=mine is None or not mine.at_ms)

    async def forever(self) -> None:
        """Do what is asked, until cancelled."""
        seen, away = -1, False
        while True:
            try:
                if (now := await erasure.revision(self._connection())) != seen:
                    await self._load()
                    for one in self._all.ones.values():
                        await self._go_on(one)
                    seen = now
                away = False
            except erasure.AWAY as error:
                if not away:
                    log.warning("erasure_waits", error=type(error).__name__)
                away = True
            await asyncio.sleep(LOOK_S)

    async def _load(self) -> None:
        self._all = await erasure.load(self._connection())
        self._mapping.tombstones = self._all.tombstones()

    async def _go_on(self, one: Erasure) -> None:
        mine, sinks = one.of(SERVICE), one.of("brevo-sink")
        if mine is None or not mine.at_ms:
            await self._erase(one)
        elif not mine.whole and sinks and sinks.whole:
            await self._finish(one, mine)

    # -- finding ------------------------------------------------------------------------------------------------

    async def _erase(self, one: Erasure) -> None:
        """Steps 1 to 5."""
        connection = self._connection()
        early = search.Found() if one.tombstone else await self._first_look(one)
        async with self._mapping.alone():
            if one.tombstone is None:
                found = await self._last_look(one, early)
                if found is None:
                    return
                await erasure.bury(connection, found)
                one.tombstone = found
                await self._load()
            buried = one.tombstone
            sequences = await self._covered(buried)
            counts = self._counts(one, sequences)
            await erasure.tell(connection, one.asked.id, Done(service=SERVICE, counts=tuple(counts.values())))
            for stream, each in sequences.items():
                await erasure.erase(connection, stream, each)
            self._take_out(one, buried, say=True)
            await self._mapping.say_all()
            await asyncio.to_thread(_rewritten, self._shelf.in_force)
            in_book = self._had(one.asked.id) or Done(service=SERVICE)
            anybody = any(count.found for count in (*counts.values(), *in_book.counts))
            dropped = await drop_aside(connection, self._shelf) if anybody else ()
            said = msgspec.structs.replace(
                in_book, counts=(*counts.values(), *in_book.counts, *dropped), at_ms=_now_ms()
            )
            await erasure.tell(connection, one.asked.id, said)
        log.info("erased", erasure=one.asked.id)

    async def _first_look(self, one: Erasure) -> search.Found:
        """Through all that is heard by now, while more is heard."""
        to = self._mapping.sequence
        person = erase.find(self._mapping.book, self._asked(one))
        return await self._through(one, person.names(), after=0, to=to)

    async def _last_look(self, one: Erasure, early: search.Found) -> Tombstone | None:
        """With nothing heard meanwhile: who it is, and all they are called.  None where it is too much."""
        person = erase.find(self._mapping.book, self._asked(one))
        names = person.names()
        after = early.to
        if not names <= early.names:  # more of theirs was heard: what it names may stand earlier, too
            after, early = 0, search.Found()
        rest = await self._through(one, names | early.links, after=after, to=self._mapping.sequence)
        names |= early.names | rest.names
        key, staying = self._all.key, {digest(self._all.key, phone) for phone in person.staying}
        if len(names) > NAMES_MAX:
            why = f"they are called by more than {NAMES_MAX:,} names: nothing was erased"
            await erasure.tell(self._connection(), one.asked.id, Done(service=SERVICE, notes=(why,)))
            log.error("not_erased", erasure=one.asked.id, why=why)
            return None
        at_ms = max(_now_ms(), early.last_ms, rest.last_ms)
        whole = tombstone(key, one.asked.id, names, at_ms)
        given = {each for each in one.asked.whom if each not in staying}
        return msgspec.structs.replace(whole, digests=b"".join(sorted({*whole.split(), *given})))

    async def _through(self, one: Erasure, names: set[str], *, after: int, to: int) -> search.Found:
        """Their raw events, and again where those name interactions that were not known to be theirs."""
        known = set(names)
        while True:
            found = await search.log(
                self._broker,
                self._mapping.policy.reading,
                self._either(one, frozenset(known)),
                after=after,
                to=to,
            )
            found.names |= names
            if found.links <= known:
                return found
            known |= found.links

    def _either(self, one: Erasure, known: frozenset[str]) -> search.Has:
        asked = self._asked(one)
        return lambda name, _: name in known or asked(name)

    def _asked(self, one: Erasure) -> erase.Has:
        key, whom = self._all.key, frozenset(one.asked.whom)
        return lambda name: digest(key, name) in whom

    async def _covered(self, buried: Tombstone) -> dict[str, list[int]]:
        """What of them stands in the streams now."""
        only = Tombstones(self._all.key, [buried])
        connection = self._connection()
        to = await last_sequence(connection, TWILIO.name)
        found = await search.log(
            self._broker,
            self._mapping.policy.reading,
            lambda name, ms: only.cover((name,), ms),
            after=0,
            to=to,
        )

        async def ends() -> AsyncIterator[tuple[str, int]]:
            for stream in search.OTHERS:
                yield stream, await last_sequence(connection, stream)

        others = await search.letters(self._broker, lambda name, _: bool(only.until_ms(name)), ends())
        return {**found.sequences, **others}

    def _counts(self, one: Erasure, sequences: dict[str, list[int]]) -> dict[str, Count]:
        """How much was found, also by one who was killed since."""
        before = {count.where: count.found for count in (one.of(SERVICE) or Done(service=SERVICE)).counts}
        counts = {stream: max(len(each), before.get(stream, 0)) for stream, each in sequences.items()}
        return {stream: Count(where=stream, found=n, erased=n) for stream, n in counts.items()}

    # -- the book -----------------------------------------------------------------------------------------------

    def _take_out(self, one: Erasure, buried: Tombstone, *, say: bool) -> None:
        """Step 4, once.  A book that has just been begun is made of what the log still holds."""
        if self._had(one.asked.id):
            return
        only = Tombstones(self._all.key, [buried])
        person = erase.Person()
        if self._mapping.book.sequence:
            person = erase.find(self._mapping.book, lambda name: bool(only.until_ms(name)))
        version = self._mapping.book.sequence
        deletes = [
            ContactDelete(id=f"{id_}/delete/{version}", ext_id=id_, version=version)
            for id_ in sorted(person.customers)
        ]
        counts = (
            Count(where="book: customers", found=len(person.customers), erased=len(person.customers)),
            Count(where="book: interactions", found=len(person.interactions), erased=len(person.interactions)),
        )  # fmt: skip
        notes = tuple("a phone stays, for others were seen with it too" for _ in sorted(person.staying)[:1])
        done = Done(
            service=SERVICE, counts=counts, notes=notes,
            deletes=tuple(digest(self._all.key, one.id) for one in deletes) if say else (),
        )  # fmt: skip
        self._mapping.forget(lambda: self._note(one.asked.id, person, done), deletes if say else [])

    def _note(self, id_: str, person: erase.Person, done: Done) -> Made:
        made = erase.erase(self._mapping.book, person, self._mapping.policy, now_ms=_now_ms())
        self._mapping.book.connection.execute(
            "INSERT INTO erasure VALUES (?, ?)", (id_, msgspec.msgpack.encode(done))
        )
        return made  # fmt: skip

    def _had(self, id_: str) -> Done | None:
        sql = "SELECT done FROM erasure WHERE id = ?"
        row = self._mapping.book.connection.execute(sql, (id_,)).fetchone()
        return msgspec.msgpack.decode(row[0], type=Done) if row else None

    async def _finish(self, one: Erasure, mine: Done) -> None:
        """Step 6: what the sink could not tell, it may have made a dead letter."""
        assert one.tombstone  # noqa: S101 - at_ms says so
        more = await self._covered(one.tombstone)
        for stream, sequences in more.items():
            await erasure.erase(self._connection(), stream, sequences)
        counts = tuple(
            msgspec.structs.replace(
                count,
                found=count.found + len(more.get(count.where, ())),
                erased=count.erased + len(more.get(count.where, ())),
            )
            for count in mine.counts
        )
        whole = msgspec.structs.replace(mine, counts=counts, whole=True, at_ms=_now_ms())
        await erasure.tell(self._connection(), one.asked.id, whole)

    def _connection(self) -> Client:
        return bus.connected(self._broker)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _rewritten(path: Path) -> None:
    """Write the file anew: a page that was split or moved may hold what is deleted."""
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
