"""Replays, as the working mapper does them: one after the other, while it hears what happens now.

A plan is made aside (aside.py).  Applying one, in this order:
  1. the connector file is read again: what is refused changes nothing;
  2. aside, the draft and its lines are brought up to the book in force, which goes on;
  3. holding the turn, so that nothing is heard: the outbox is published; the draft takes in the rest of the log; the
     lines of whom that, or the mapper meanwhile, touched are made again;
  4. one transaction: the lines' commands into the draft's backlog;
  5. one rename: the draft is the book in force.  From here on all is heard by it and the new mapping;
  6. bit by bit, between batches, the backlog goes into the outbox and is published;
  7. the replay is `applied`.
Killed before 5, the old book is in force and nothing was said: it begins again at 1.  Killed after it, the new book is in
force, and goes on at 6; what was published already is dropped by its Nats-Msg-Id, and by the sink's ledger.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable

import msgspec
import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.js.kv import KeyValue

from mapper.aside import Errand, StoppedError, write
from mapper.book import Book
from mapper.draft import Draft
from mapper.identity import PREFIX
from mapper.mapping import Mapping
from mapper.plan import since
from mapper.planning import Comparison
from mapper.refold import Refold
from mapper.shelf import IDS, Shelf
from mapper.step import Policy
from shared import bus, kv, replay
from shared.command import ContactRelink, EventTrack
from shared.config import Config
from shared.connector_file import ConfigError
from shared.past import last_sequence, past
from shared.replay import Replay
from shared.topology import MAPPER, REPLAYS

LOOK_S = 1.0  # between looks whether somebody wants something
NEAR = 1000  # raw events a draft may be behind when the turn is held: some tenths of a second
WATCHED_MAX = 20_000  # commands made while it was brought up; else it is brought up once more
TRIES_MAX = 5  # of a process aside that ends otherwise than it should
AGAIN_S = 2.0  # between them
CLEAR_S = 0.05  # between two bits of what only a draft needs

log = structlog.get_logger()


class RefusedError(Exception):
    """It cannot be done, and what to do."""


class Replays:
    """Looks at the bucket `replays`, and does what is asked."""

    def __init__(
        self,
        broker: NatsBroker,
        mapping: Mapping,
        shelf: Shelf,
        *,
        read_config: Callable[[], Config],
        nats_url: str,
    ) -> None:
        """`read_config` reads the connector file as it is then; raises ConfigError."""
        self._broker = broker
        self._mapping = mapping
        self._shelf = shelf
        self._read_config = read_config
        self._nats_url = nats_url
        self._seen = -1  # of the bucket
        self.under_way: tuple[str, ...] = ()

    async def work(self) -> None:
        """Do whatever is asked, the oldest first.  Ends when cancelled."""
        await self._clear()
        while True:
            try:
                if connection := bus.client(self._broker):
                    seen = await last_sequence(connection, f"KV_{REPLAYS.name}")
                    if seen != self._seen:
                        await self._do_all(connection, await connection.jetstream().key_value(REPLAYS.name))
                        self._seen = seen
            except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
                log.debug("replays_not_read", error=type(error).__name__)
            await asyncio.sleep(LOOK_S)

    async def _do_all(self, connection: Client, bucket: KeyValue) -> None:
        keys = await kv.keys(connection, REPLAYS.name)
        found = [one for key in keys if (one := (await replay.read(bucket, key))[1]) is not None]
        found.sort(key=lambda one: (one.asked.at_ms, one.asked.id))
        self.under_way = tuple(one.asked.id for one in found if not one.ended)
        for one in found:
            try:
                await self._do(bucket, one)
            except StoppedError:  # by somebody else; seen at the next look
                continue
            except (RefusedError, ConfigError) as error:
                await self._refuse(bucket, one.asked.id, str(error))

    async def _do(self, bucket: KeyValue, one: Replay) -> None:
        id_ = one.asked.id
        if not IDS.fullmatch(id_):
            if not one.ended:
                raise RefusedError("a replay's id is 64 letters and digits at most: ask again with another")
        elif one.state == "dropped":
            self._drop(id_)
        elif one.state == "applying" and self._shelf.in_force == self._shelf.path(id_):
            await self._finish(bucket, id_)
        elif one.state in ("asked", "folding"):
            one = await self._name_nobody(bucket, one)
            self._shelf.make_room(but=id_)
            await self._aside(bucket, id_, apply=False)
        elif one.state in ("planned", "applying") and one.apply:
            await self._apply(bucket, one)

    async def _refuse(self, bucket: KeyValue, id_: str, why: str) -> None:
        def refused(one: Replay) -> None:
            one.state, one.why, one.apply = "refused", why, ""

        log.warning("replay_refused", replay=id_)
        await write(bucket, id_, refused)

    async def _name_nobody(self, bucket: KeyValue, one: Replay) -> Replay:
        """Ext_ids in the place of mails and phones, in the bucket too."""
        chosen = one.asked.selection.customers
        if all(whom.startswith(PREFIX) for whom in chosen):
            return one
        found = [
            [whom] if whom.startswith(PREFIX) else self._mapping.book.find(whom.strip()) for whom in chosen
        ]
        ids = tuple(sorted({id_ for ids in found for id_ in ids}))
        nobody = [number for number, ids in enumerate(found, start=1) if not ids]
        selection = msgspec.structs.replace(one.asked.selection, customers=ids)
        asked = msgspec.structs.replace(one.asked, selection=selection)

        def named(now: Replay) -> None:
            now.asked = asked

        await write(bucket, one.asked.id, named)
        if nobody:
            which = ", ".join(map(str, nobody))
            raise RefusedError(
                f"the book knows nobody as customer number {which} of the selection: "
                "name a mail, phone, external id, ext_id or sid of theirs, and ask again"
            )
        return msgspec.structs.replace(one, asked=asked)

    # -- applying -----------------------------------------------------------------------------------------------

    async def _apply(self, bucket: KeyValue, one: Replay) -> None:
        id_ = one.asked.id
        config = self._may_apply(one)

        def applying(now: Replay) -> None:
            now.state, now.why = "applying", ""

        await write(bucket, id_, applying)
        try:
            while True:
                self._mapping.watch()
                if not await self._aside(bucket, id_, apply=True):
                    return
                if len(self._mapping.watched) <= WATCHED_MAX:
                    break
            began = time.monotonic()
            await self._swap(one, config)
            log.warning("book_swapped", replay=id_, mapping=config.hash, s=round(time.monotonic() - began, 3))
        finally:
            self._mapping.unwatch()
        await self._finish(bucket, id_)

    def _may_apply(self, one: Replay) -> Config:
        """The connector file as it is now.  Raises RefusedError, ConfigError."""
        config = self._read_config()
        if one.apply != one.plan:
            raise RefusedError(f"its plan is {one.plan or 'not made yet'}, and not {one.apply}: apply that")
        if config.hash != one.mapping:
            raise RefusedError(
                f"the connector file where the mapper runs makes the mapping {config.hash}, and the plan is for "
                f"{one.mapping}: put the file there that was planned with (TAJO_CONFIG), and apply again"
            )
        if not config.flex.enabled:
            raise RefusedError("the connector file says enabled: false: set it to true, and apply again")
        return config

    async def _swap(self, one: Replay, config: Config) -> None:
        """Steps 3 to 5."""
        id_, policy = one.asked.id, Policy.of(config)
        draft = Draft(self._shelf.path(id_))
        try:
            refold = Refold(draft, policy, self._mapping.tombstones)
            while self._mapping.sequence - draft.sequence > NEAR:
                await self._take_in(draft, refold, self._mapping.sequence)
            async with self._mapping.alone():
                held = time.monotonic()
                if not self._shelf.path(id_).exists():  # somebody was forgotten meanwhile, and it with them
                    raise StoppedError
                await self._mapping.say_all()
                await self._take_in(draft, refold, self._mapping.sequence)
                refold.let_go(max(one.asked.at_ms, round(time.time() * 1000)))
                self._take_over(draft, policy, one)
                self._shelf.put_in_force(id_)
                self._mapping.swap(Book(self._shelf.in_force), policy)
                log.warning("turn_held", replay=id_, s=round(time.monotonic() - held, 3))
        finally:
            draft.close()

    async def _take_in(self, draft: Draft, refold: Refold, to: int) -> None:
        async for messages in past(self._broker, MAPPER.stream, after=draft.sequence, to=to):
            refold.hear(messages)
        with draft:
            draft.sequence = to

    def _take_over(self, draft: Draft, policy: Policy, one: Replay) -> None:
        names: set[str] = set()
        for made in self._mapping.watched:
            names |= {made.ext_id, made.was} if isinstance(made, ContactRelink) else {made.ext_id}
        with draft:
            draft.said(made for made in self._mapping.watched if isinstance(made, EventTrack))
        comparison = Comparison(draft, self._mapping.book, policy, self._mapping.config, one.asked.id)
        comparison.again(names | draft.touched())
        with draft:
            draft.note(
                commands=draft.bring_lines_on(since(one.asked)),
                replaced=self._shelf.in_force.stem,
                applied_ms=round(time.time() * 1000),
            )

    async def _finish(self, bucket: KeyValue, id_: str) -> None:
        """Steps 6 and 7: return once the backlog is published."""
        await self._mapping.all_brought()
        draft = Draft(self._shelf.path(id_))  # its notes
        try:
            commands, applied_ms = (int(draft.noted(key) or 0) for key in ("commands", "applied_ms"))
        finally:
            draft.close()

        def applied(now: Replay) -> None:
            now.state, now.why, now.commands, now.applied_ms = "applied", "", commands, applied_ms
            now.sequence = now.to = self._mapping.sequence

        await write(bucket, id_, applied)
        log.info("replay_applied", replay=id_, commands=commands)
        await self._clear()

    async def _clear(self) -> None:
        """What only a draft needs goes, bit by bit, between batches."""
        if not self._draft_in_force():
            return
        draft = Draft(self._shelf.in_force)
        try:
            more = not self._mapping.book.backlog
            while more:
                await asyncio.sleep(CLEAR_S)
                async with self._mapping.alone():
                    more = draft.clear()
        finally:
            draft.close()

    def _draft_in_force(self) -> bool:
        return bool(IDS.fullmatch(self._shelf.in_force.stem))

    # -- files and processes ------------------------------------------------------------------------------------

    def _drop(self, id_: str) -> None:
        """Its book goes; where that is in force, the one it replaced."""
        path = self._shelf.path(id_)
        if not path.exists():
            return
        if not self._shelf.drop(id_):
            draft = Draft(path)
            try:
                replaced = draft.noted("replaced")
            finally:
                draft.close()
            if replaced and self._shelf.path(replaced).exists():
                self._shelf.drop(replaced)
                log.info("book_dropped", book=replaced)
        else:
            log.info("book_dropped", book=id_)

    async def _aside(self, bucket: KeyValue, id_: str, *, apply: bool) -> bool:
        """Have it done in a process of its own; whether it was.  Raises StoppedError, RefusedError."""
        errand = Errand(self._nats_url, str(self._shelf.link.parent), id_, self._mapping.config, apply)
        for _ in range(TRIES_MAX):
            code = await _run(msgspec.json.encode(errand))
            if code == os.EX_OK:
                return (await self._state(bucket, id_)) in ("planned", "applying")
            if code == os.EX_NOUSER:
                raise StoppedError
            if code == os.EX_TEMPFAIL:  # the draft is gone: it is planned anew, and done if that is the same
                await self._aside(bucket, id_, apply=False)
                return False
            log.warning("aside_failed", replay=id_, code=code)
            await asyncio.sleep(AGAIN_S)

        def failed(now: Replay) -> None:
            now.state, now.apply = "failed", ""
            now.why = f"the process aside ended with {code} {TRIES_MAX} times: the mapper's log says more; then ask again"

        await write(bucket, id_, failed)
        return False

    async def _state(self, bucket: KeyValue, id_: str) -> str:
        _, now = await replay.read(bucket, id_)
        return now.state if now else ""


async def _run(errand: bytes) -> int:
    """The exit code of a process aside; it ends with us."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mapper.aside", stdin=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        process.stdin.write(errand + b"\n")
        await process.stdin.drain()
        return await process.wait()
    except (BrokenPipeError, ConnectionResetError):
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
