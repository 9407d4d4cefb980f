"""Many contacts of the past at once, by Brevo's import: one at a time, followed until it has ended.

The order: the import; its end; its files; one contact is looked at; then ledger, receipts, ack.  A crash before the
ledger imports or tells the same again, which is harmless.  What was refused, or nobody knows of, is told singly.
"""

import asyncio
import random
import time
from collections.abc import Collection, Sequence
from urllib.parse import quote

import structlog

from brevo_sink import answer, bulk, papers
from brevo_sink.brevo import Brevo, Reply, Result
from brevo_sink.desk import Desk, Item
from brevo_sink.ends import Ends
from brevo_sink.gate import Gate
from brevo_sink.ledger import Ledger
from shared.command import ContactUpsert
from shared.verdict import Pause, Retry

POLL_MAX_S = 300.0  # between looks at a process: they count among the 100 calls an hour of "all others"
STUCK_S = 900.0  # after so long an import is given up, and all of it told singly

log = structlog.get_logger()


class Imports:
    """The way of many contacts to Brevo."""

    def __init__(
        self,
        *,
        brevo: Brevo,
        ledger: Ledger,
        desk: Desk,
        ends: Ends,
        gate: Gate,
        least: int,
        new: bool,
        look_s: float,
    ) -> None:
        """`least` contacts make an import worth it; 0 for never.  `new`: also those that Brevo was never told of."""
        self._may_be_new = new
        self._brevo = brevo
        self._ledger = ledger
        self._desk = desk
        self._ends = ends
        self._gate = gate
        self._least = least
        self._look_s = look_s

    def take(self, now: float) -> list[Item]:
        """Contacts that may go by import, where they are enough; they are busy until `run` has ended."""
        if not self._least:
            return []
        return self._desk.take_past(
            now, self._least, self._importable, lambda some: bulk.fitting(map(_upsert, some))
        )

    async def run(self, items: Sequence[Item]) -> None:
        """Import them, and settle what came of each."""
        began = time.monotonic()
        there, singly = await self._import(items)
        self._ledger.deliver_all([papers.told(item, _upsert(item)) for item in there])
        await self._ends.end_each(there, "delivered")
        for item in singly:
            item.singly = True
        await self._ends.back(singly)
        self._desk.done([item.ext_id for item in items])
        seconds = round(time.monotonic() - began, 1)
        log.info("imported", contacts=len(there), singly=len(singly), seconds=seconds)

    async def _import(self, items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
        """Those that are at Brevo now, and those that are to be told singly."""
        await self._gate.passed()
        await self._brevo.turn("contacts")
        upserts = [_upsert(item) for item in items]
        new = {upsert.ext_id for upsert in upserts if self._is_new(upsert)}
        result = await self._brevo.call(
            "POST", "/contacts/import", json=bulk.body(upserts, new), kind="contact.upsert"
        )
        number = bulk.process_id(result.body) if isinstance(result, Reply) and result.status == 202 else None
        if number is None:
            self._refused(result)
            return (), items
        urls = await self._ended(number)
        files = [] if urls is None else [await self._brevo.file(url) for url in urls]
        read = [file for file in files if file is not None]
        if urls is None or len(read) < len(files):
            log.warning("import_unknown", process=number)
            return (), items
        lost = bulk.refused(upserts, read)
        there = [item for item in items if item.command.ext_id not in lost]
        if there and not await self._seen(_upsert(random.choice(there)), new):  # noqa: S311 - any one will do
            self._least = 0
            log.error("import_not_seen", process=number, remedy="contacts are told one by one from here on")
            return (), items
        return there, [item for item in items if item.command.ext_id in lost]

    def _refused(self, result: Result) -> None:
        if not isinstance(result, Reply):
            return
        outcome = answer.of_contact(result.status, result.headers, result.body)
        if isinstance(outcome, Pause):
            self._gate.shut(outcome)
        elif not isinstance(outcome, Retry):
            self._least = 0
            log.warning("import_refused", status=result.status)

    async def _ended(self, number: int) -> tuple[str, ...] | None:
        """The files of what was refused, once it has ended; None where it failed, or does not end."""
        wait_s, until = self._look_s, time.monotonic() + STUCK_S
        while time.monotonic() < until:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, POLL_MAX_S)
            await self._gate.passed()
            await self._brevo.turn("other")
            result = await self._brevo.call("GET", f"/processes/{number}")
            found = bulk.process(result.body) if isinstance(result, Reply) and result.status == 200 else None
            if found is not None and found.status != "waits":
                return found.files if found.status == "completed" else None
        return None

    async def _seen(self, upsert: ContactUpsert, new: Collection[str]) -> bool:
        """Whether Brevo has one of them as it was imported: `completed` alone does not say so."""
        await self._brevo.turn("contacts")
        path, by = f"/contacts/{quote(upsert.ext_id, safe='')}", [("identifierType", "ext_id")]
        result = await self._brevo.call("GET", path, params=by)
        said = bulk.row(upsert, new=upsert.ext_id in new)["attributes"]
        return isinstance(result, Reply) and result.status == 200 and bulk.holds(result.body, said)

    def _importable(self, item: Item) -> bool:
        upsert = _upsert(item)
        told, new = self._ledger.identifiers(upsert.ext_id), self._is_new(upsert)
        return bulk.importable(upsert, told, new=new) and not self._ledger.foreign_name(upsert.ext_id)

    def _is_new(self, upsert: ContactUpsert) -> bool:
        return self._may_be_new and not self._ledger.has(upsert.ext_id)


def _upsert(item: Item) -> ContactUpsert:
    assert isinstance(item.command, ContactUpsert)  # noqa: S101 - the desk keeps them apart
    return item.command
