"""A replay's work beside the mapper's own, in a process of its own: `python -m mapper.aside`, an errand on standard input.

It folds the log into a draft, compares that with the book in force, and puts the plan into the object store.  Killed at
any moment, it goes on where it was: each batch and the sequence it ends with are one transaction, and what is compared
again ends the same.  It ends when its standard input does, which is when the mapper is no more.  It writes nothing that
anybody else reads but the replay's progress, by compare-and-swap, its plan and its draft; and tells Brevo nothing.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker
from msgspec import Struct
from nats.aio.client import Client
from nats.js.kv import KeyValue

from mapper.book import Book
from mapper.child import end_with_the_mapper
from mapper.draft import Draft
from mapper.planning import Comparison, plan, write_expected
from mapper.rebuild import TRACKED, TRACKS
from mapper.refold import Refold
from mapper.selecting import SelectionError, selected
from mapper.shelf import Shelf
from mapper.step import Policy
from shared import bus, command, erasure, log, receipt, replay
from shared.command import EventTrack
from shared.config import Config
from shared.connector_file import ConfigError, parse
from shared.login import Login, login_as
from shared.past import AGAIN_S, acked, last_sequence, past
from shared.replay import Asked, Replay
from shared.tombstone import Tombstones
from shared.topology import BREVO, MAPPER, PLANS, RECEIPTS, REPLAYS

TELL_S = 1.0  # between two writes of how far it is
NICER = 10  # than the mapper: what happens now goes first
TRIES_MAX = 5  # to write a replay that somebody else writes too
HAS = ("delivered", "sending", "in_doubt", "unresolved")  # outcomes after which Brevo has an event, or may

logger = structlog.get_logger()


class Errand(Struct, frozen=True):
    """What the mapper wants to be done."""

    nats_url: str
    folder: str  # the mapper's
    id: str  # of the replay
    in_force: Config
    apply: bool = False  # bring what was planned up to now; else plan


class StoppedError(Exception):
    """Somebody wants the replay no more."""


class Aside:
    """One errand."""

    def __init__(
        self, errand: Errand, broker: NatsBroker, bucket: KeyValue, asked: Asked, forgotten: Tombstones
    ) -> None:
        """Opens the draft.  Raises ConfigError.

        Of whom was `forgotten` nothing of before is folded: it may have come again since, and is not erased yet.
        """
        self._errand = errand
        self._broker = broker
        self._bucket = bucket
        self._asked = asked
        self._shelf = Shelf(Path(errand.folder))
        config = parse(asked.mapping, "the mapping asked for")
        self._config, self._policy = config, Policy.of(config)
        self._draft = _draft(self._shelf.path(errand.id), config)
        self._refold = Refold(self._draft, self._policy, forgotten)

    async def plan(self) -> None:
        """From the log to a plan."""
        live = Book(self._shelf.in_force, read_only=True)
        try:
            await self._fold(await acked(self._broker, MAPPER))
            await self._read_said(before=True)
            sequence = live.snapshot()
            await self._fold(sequence)
            await self._read_said(before=False)
            comparison = self._comparison(live)
            chosen = await selected(
                self._broker, self._draft, self._policy, self._asked, become=comparison.become
            )
            with self._draft:
                self._draft.tell_again(chosen)
            for _ in comparison.all():
                await asyncio.sleep(0)  # the broker is answered meanwhile
        finally:
            live.close()
        made = plan(self._draft, self._asked, mapping=self._config.hash, before=self._errand.in_force.hash)
        store = await (await self._client()).jetstream().object_store(PLANS.name)
        if self._asked.expected:
            await self._put_expected(store)
        await store.put(self._errand.id, replay.to_object(made))
        with self._draft:
            self._draft.note(plan=made.hash)

        def planned(now: Replay) -> None:
            # Asked for before, and made anew since: it is done only if it is the same plan.
            why = "what was planned is not what would be done now: look at the new plan, and apply that"
            now.why = why if now.apply not in ("", made.hash) else ""
            now.apply = now.apply if now.apply == made.hash else ""
            now.state, now.plan, now.mapping = "planned", made.hash, self._config.hash
            now.sequence = now.to = made.sequence

        await self._write(planned)

    async def catch_up(self) -> bool:
        """Bring the draft and its lines up to the book in force, which goes on; False where it is not what was planned."""
        _, now = await replay.read(self._bucket, self._errand.id)
        if now is None or not now.apply or self._draft.noted("plan") != now.apply:
            return False
        live = Book(self._shelf.in_force, read_only=True)
        try:
            await self._fold(await acked(self._broker, MAPPER))
            await self._read_said(before=True)
            await self._fold(live.snapshot())
            await self._read_said(before=False)
            comparison = self._comparison(live)
            comparison.again(comparison.changed())
        finally:
            live.close()
        return True

    def close(self) -> None:
        """Close the draft."""
        self._draft.close()

    def _comparison(self, live: Book) -> Comparison:
        return Comparison(self._draft, live, self._policy, self._errand.in_force, self._errand.id)

    async def _fold(self, to: int) -> None:
        """Fold the log up to and with a sequence, and let go what has waited long enough by then."""
        heard_ms, told = self._asked.at_ms, 0.0
        with self._draft.unhurried():
            async for messages in past(self._broker, MAPPER.stream, after=self._draft.sequence, to=to):
                self._refold.hear(messages)
                heard_ms = max(heard_ms, round(messages[-1].metadata.timestamp.timestamp() * 1000))
                if time.monotonic() - told > TELL_S:
                    told = time.monotonic()
                    await self._tell(to)
        with self._draft:
            self._draft.sequence = to  # what is gone from the log is not waited for
        self._refold.let_go(heard_ms)
        await self._tell(to)

    async def _tell(self, to: int) -> None:
        def going_on(now: Replay) -> None:
            if now.state == "asked":
                now.state = "folding"
            now.sequence, now.to, now.mapping = self._draft.sequence, to, self._config.hash

        await self._write(going_on)

    async def _read_said(self, *, before: bool) -> None:
        """What of events was said, and what became of it: from where it was read last up to now."""
        connection = await self._client()
        to = {name: await last_sequence(connection, name) for name in (BREVO.name, RECEIPTS.name)}
        after = {name: int(self._draft.noted(name) or 0) for name in to}
        async for messages in past(
            self._broker, BREVO.name, after=after[BREVO.name], to=to[BREVO.name], subjects=TRACKS
        ):
            commands = [command.from_body(message.data) for message in messages]
            with self._draft:
                self._draft.said((one for one in commands if isinstance(one, EventTrack)), before=before)
                self._draft.note(**{BREVO.name: messages[-1].metadata.sequence.stream})
        async for messages in past(
            self._broker, RECEIPTS.name, after=after[RECEIPTS.name], to=to[RECEIPTS.name], subjects=TRACKED
        ):
            with self._draft:
                for message in messages:
                    one = receipt.from_body(message.data)
                    if one.outcome in HAS or one.outcome in ("rejected", "superseded"):
                        self._draft.ended(one.ids, has=one.outcome in HAS)
                self._draft.note(**{RECEIPTS.name: messages[-1].metadata.sequence.stream})

    async def _put_expected(self, store: nats.js.object_store.ObjectStore) -> None:
        with tempfile.TemporaryDirectory(dir=self._errand.folder) as folder:
            path = Path(folder) / "expected"
            write_expected(self._draft, self._asked, self._config, path)
            with path.open("rb") as file:
                await store.put(f"{self._errand.id}.expected", file)

    async def _write(self, change: Callable[[Replay], None]) -> None:
        await write(self._bucket, self._errand.id, change)

    async def _client(self) -> Client:
        """The connection, however long it is away."""
        while True:
            if connection := bus.client(self._broker):
                return connection
            await asyncio.sleep(AGAIN_S)


async def write(bucket: KeyValue, id_: str, change: Callable[[Replay], None]) -> None:
    """Change a replay that goes on, whoever else writes it.  Raises StoppedError where it has ended, and nats' errors."""
    for tried in range(TRIES_MAX):
        revision, now = await replay.read(bucket, id_)
        if now is None or now.ended:
            raise StoppedError
        change(now)
        try:
            await replay.write(bucket, now, revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            if tried == TRIES_MAX - 1:
                raise
        else:
            return


def _draft(path: Path, config: Config) -> Draft:
    """The draft as it was left; a new one where it is another mapping's."""
    draft = Draft(path)
    if (noted := draft.noted("mapping")) not in ("", config.hash):
        draft.close()
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
        draft = Draft(path)
        noted = ""
    if not noted:
        with draft:
            draft.note_mapping(config)
            draft.note(mapping=config.hash)
    return draft


async def run(errand: Errand, login: Login) -> int:
    """Do the errand; the exit code: 0 done, EX_TEMPFAIL what was planned is gone, EX_NOUSER nobody wants it any more."""
    broker = bus.connect(errand.nats_url, service="mapper-aside", login=login)
    await broker.connect()
    try:
        connection = bus.client(broker)
        if connection is None:
            return os.EX_UNAVAILABLE
        bucket = await connection.jetstream().key_value(REPLAYS.name)
        _, now = await replay.read(bucket, errand.id)
        if now is None or now.ended:
            return os.EX_NOUSER
        try:
            forgotten = (await erasure.load(connection)).tombstones()
            aside = Aside(errand, broker, bucket, now.asked, forgotten)
            try:
                if not errand.apply:
                    await aside.plan()
                elif not await aside.catch_up():
                    return os.EX_TEMPFAIL
            finally:
                aside.close()
        except (ConfigError, SelectionError) as error:
            why = str(error)

            def refuse(one: Replay) -> None:
                one.state, one.why = "refused", why

            await write(bucket, errand.id, refuse)
    except StoppedError:
        return os.EX_NOUSER
    finally:
        await broker.stop()
    return os.EX_OK


def main() -> None:
    """One errand, a line of JSON on standard input."""
    errand = msgspec.json.decode(sys.stdin.buffer.readline(), type=Errand)
    os.nice(NICER)
    log.set_up("mapper-aside", level="warning")
    end_with_the_mapper()
    try:
        code = asyncio.run(run(errand, login_as("mapper", errand.nats_url, os.environ)))
    except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
        logger.warning("aside_interrupted", replay=errand.id, error=type(error).__name__)
        code = os.EX_UNAVAILABLE
    sys.exit(code)


if __name__ == "__main__":
    main()
