"""Forgetting somebody: the sink's part, which is Brevo, commands, receipts and the ledger.

The order of effects, and why a crash repeats and never loses.  The mapper has said `contact.delete` before (its own part).
  1. Brevo has deleted the contact, as the ledger knows; up to that position of BREVO nothing said of them counts;
  2. nothing said of them is in hand; contacts that were set aside, or had an earlier name of theirs, are deleted too;
  3. their commands in BREVO are overwritten on disk;
  4. of receipts that name others too, it is said again what became of those; then the receipts are overwritten;
  5. the ledger forgets them, and its file is written anew; 6. it is said that all is done.
Each step may be repeated; what is left of theirs is found by the tombstone.
"""

import asyncio
import hashlib
import time
from collections.abc import Iterable, Sequence

import msgspec
import structlog
from faststream.nats import NatsBroker
from msgspec import Struct
from nats.aio.client import Client

from brevo_sink.alone import delete
from brevo_sink.brevo import Brevo
from brevo_sink.gate import Gate
from brevo_sink.hearing import Hearing
from brevo_sink.ledger import Ledger
from brevo_sink.remains import Remains, is_theirs, of_receipts
from brevo_sink.request import BATCH_MAX
from shared import bus, command, dead, erasure, receipt, trace
from shared.bus import Publisher
from shared.command import Command, ContactRelink
from shared.erasure import Count, Done, Erasure, Erasures
from shared.past import last_sequence, past
from shared.receipt import Receipt
from shared.tombstone import Tombstone, Tombstones, digest
from shared.topology import BREVO, RECEIPTS
from shared.verdict import Done as Told

LOOK_S = 1.0  # between looks whether somebody is to be forgotten
AGAIN_S = 1.0  # while the broker is away, or what waits has not ended
SERVICE = "brevo-sink"

log = structlog.get_logger()


class _Commands(Struct):
    """What stands in BREVO of them."""

    sequences: list[tuple[int, int]] = []  # each with the position it was said at first
    names: set[str] = set()
    deleted: int = 0  # the last position of a contact.delete that the mapper said for this


class Forgetting:
    """All erasures, as far as they are the sink's."""

    def __init__(
        self, broker: NatsBroker, *, brevo: Brevo, ledger: Ledger, hearing: Hearing, publisher: Publisher, gate: Gate
    ) -> None:  # fmt: skip
        self._broker = broker
        self._brevo = brevo
        self._ledger = ledger
        self._hearing = hearing
        self._publisher = publisher
        self._gate = gate
        self._all = Erasures()

    async def begin(self) -> None:
        """Before anything is heard: know whom not to tell of, and bring an old copy of the ledger up to date."""
        await erasure.until_read(self._load)
        for one in self._all.ones.values():
            mine = one.of(SERVICE)
            if one.tombstone and mine and mine.whole and not self._ledger.forgot(one.asked.id):
                await self._forget(one, mine.position)

    async def forever(self) -> None:
        """Do what is asked, until cancelled."""
        seen, away = -1, False
        while True:
            try:
                if (now := await erasure.revision(self._connection())) != seen:
                    await self._load()
                    waiting = [one for one in self._all.ones.values() if not await self._is_done(one)]
                    seen = now if not waiting else -1
                away = False
            except erasure.AWAY as error:
                if not away:
                    log.warning("erasure_waits", error=type(error).__name__)
                away = True
            await asyncio.sleep(LOOK_S)

    async def _load(self) -> None:
        self._all = await erasure.load(self._connection())
        self._hearing.forgotten = self._all.forgotten()

    async def _is_done(self, one: Erasure) -> bool:
        """Go on with it; whether nothing of it waits."""
        mappers, mine = one.of("mapper"), one.of(SERVICE)
        if not mappers or not mappers.at_ms or not one.tombstone or (mine and mine.whole):
            return True  # nothing to do until somebody says something more
        await self._gate.passed()
        has = Tombstones(self._all.key, [one.tombstone])
        ended = self._ended(mappers.deletes)
        if len(ended) < len(mappers.deletes):
            return False
        said = await self._said(has, mappers.deletes)
        found = {count.where: count.found for count in mine.counts} if mine else {}
        position = (
            mine.position
            if mine and mine.position
            else said.deleted or await last_sequence(self._connection(), BREVO.name)
        )
        notes = mine.notes if mine else tuple(
            "Brevo refused to delete a contact: look for it by hand" for state in ended if state == "rejected"
        )  # fmt: skip

        async def tell(*, whole: bool) -> None:
            counts = tuple(
                Count(where=where, found=n, erased=n if whole else 0) for where, n in found.items()
            )
            await erasure.tell(
                self._connection(), one.asked.id,
                Done(service=SERVICE, whole=whole, at_ms=time.time_ns() // 1_000_000, counts=counts, notes=notes, position=position),
            )  # fmt: skip

        def count(where: str, number: int) -> None:
            found[where] = max(found.get(where, 0), number)

        theirs = [sequence for sequence, first in said.sequences if first <= position]
        count("BREVO", len(theirs))
        count("Brevo: contacts", len(ended))
        await tell(whole=False)
        await self._load()
        if self._hearing.holds(self._hearing.forgotten):
            return False
        if not await self._others_are_gone(has, said.names, position):
            return False
        await erasure.erase(self._connection(), BREVO.name, theirs)
        remains = await self._receipts(has)
        if remains is None:
            return False
        count("RECEIPTS", len(remains.sequences))
        count("receipts said again for others", await self._say_again(remains))
        await erasure.erase(self._connection(), RECEIPTS.name, remains.sequences)
        count("ledger", await self._forget(one, position))
        await tell(whole=True)
        log.info("erased", erasure=one.asked.id)
        return True

    # -- Brevo --------------------------------------------------------------------------------------------------

    def _ended(self, deletes: Sequence[bytes]) -> list[str]:
        """How the deletions ended that did."""
        wanted = set(deletes)
        ids = [id_ for id_ in self._ledger.deletions() if digest(self._all.key, id_) in wanted]
        return [state for state in self._ledger.states(ids).values() if state in ("delivered", "rejected")]

    async def _others_are_gone(self, has: Tombstones, names: set[str], position: int) -> bool:
        """Contacts of theirs that have another name at Brevo than the one that was deleted."""
        theirs = names | {name for name in self._ledger.names() if has.until_ms(name)}
        aside = {
            f"{now}.{version}"
            for _, now, version in (id_.split("/") for id_ in self._ledger.relinks() if id_.count("/") == 2)
            if has.until_ms(now)
        }
        for name in sorted(theirs | aside):
            told = self._ledger.delivered(name)
            if told and told[1] > position:
                continue  # they came back, and are a new customer
            await self._brevo.turn("contacts")
            if not isinstance(await delete(self._brevo, name), Told):
                return False
        return True

    # -- streams ------------------------------------------------------------------------------------------------

    async def _said(self, has: Tombstones, deletes: Sequence[bytes]) -> _Commands:
        found, wanted = _Commands(), set(deletes)
        to = await last_sequence(self._connection(), BREVO.name)
        async for messages in past(self._broker, BREVO.name, after=0, to=to):
            for message in messages:
                try:
                    one = command.from_body(message.data)
                except msgspec.MsgspecError:
                    continue
                names = [name for name in _names(one) if has.until_ms(name)]
                if names:
                    sequence = message.metadata.sequence.stream
                    first = dead.first_said(message.headers or {}, before=sequence) or sequence
                    found.sequences.append((sequence, first))
                    found.names.update(names)
                    if digest(self._all.key, one.id) in wanted:
                        found.deleted = max(found.deleted, sequence)
        return found

    async def _receipts(self, has: Tombstones) -> Remains | None:
        """Those that name them; None while what others of these are in has not ended."""
        remains = Remains()
        to = await last_sequence(self._connection(), RECEIPTS.name)
        async for messages in past(self._broker, RECEIPTS.name, after=0, to=to):
            read = [(one.metadata.sequence.stream, receipt.from_body(one.data)) for one in messages]
            of_receipts(read, has, remains)
        open_ = (
            state for state in self._ledger.states(sorted(remains.others)).values() if state in ("sending", "in_doubt")
        )  # fmt: skip
        return None if any(True for _ in open_) else remains

    async def _say_again(self, remains: Remains) -> int:
        """What became of the others, as the ledger knows; what folds into nothing, as it was."""
        states = self._ledger.states(sorted(remains.others))
        again = list(remains.again)
        for outcome in ("delivered", "rejected", "unresolved"):
            ids = sorted(id_ for id_, state in states.items() if state == outcome)
            again += [
                Receipt(outcome=outcome, kind="event.track", ids=tuple(ids[start : start + BATCH_MAX]), batch="again")
                for start in range(0, len(ids), BATCH_MAX)
            ]  # fmt: skip
        for one in again:
            name = hashlib.blake2b("\n".join(one.ids).encode(), digest_size=12).hexdigest()
            message = receipt.to_message(one, f"{one.outcome}/again/{name}", trace.start())
            self._ledger.said(await self._publisher.publish_one(message))
        return len(again)

    async def _forget(self, one: Erasure, position: int) -> int:
        """Step 5; returns how many rows."""
        tombstone = one.tombstone or Tombstone(erasure=one.asked.id, at_ms=0, digests=b"")
        has = Tombstones(self._all.key, [tombstone])
        ids: list[str] = []
        after = ""
        while some := self._ledger.ids(after):
            ids += [id_ for id_ in some if is_theirs(id_, has)]
            after = some[-1]
            await asyncio.sleep(0)  # health is asked meanwhile
        names = [name for name in self._ledger.names() if has.until_ms(name)]
        self._ledger.forget_person(one.asked.id, ids, names, position=position)
        return len(ids) + len(names)

    def _connection(self) -> Client:
        return bus.connected(self._broker)


def _names(one: Command) -> Iterable[str]:
    return (one.was, one.ext_id) if isinstance(one, ContactRelink) else (one.ext_id,)
