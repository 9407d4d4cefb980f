"""`tajo replay --into NAME`: all that follows from the log, in another Brevo account, and a certificate that it is there.

NAME has a folder with a broker, a sink, its ledger and a book of its own; of the deployment only the log is read.  The order,
and why a crash repeats and never loses:
  1. the folder says what is rebuilt: which account, up to which sequence, with which mapping;
  2. the log is folded into what Brevo shall be told (refold.py);
  3. the account is looked at: nothing of ours is there, nor anybody with an email or phone of a customer.  Only then may
     an import bring new contacts without merging any (ADR 0013);
  4. contacts, and when all have ended events, are said to the folder's own BREVO, and a sink tells them: what it was
     doing when it was killed it does as any sink does;
  5. Brevo is read back and compared; the certificate is written.
Each step is on disk before the next begins.  A rebuild that is done is only read back again.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry

from brevo_sink.brevo import Brevo
from brevo_sink.budget import Budget
from brevo_sink.metrics import Metrics
from brevo_sink.preflight import preflight
from brevo_sink.relink import PREFIX
from shared import bus
from shared.command import Command
from shared.config import Config
from shared.event import rfc3339
from shared.login import login_as
from shared.past import last_sequence
from shared.topology import DEAD, TWILIO
from tajo import apart, readback
from tajo.apart import Apart
from tajo.broker import connected
from tajo.certificate import Certificate, differing
from tajo.drift import Ours, written
from tajo.readback import Found
from tajo.rebuilt import Rebuilt, State
from tajo.refold import refold
from tajo.target import Target

LOOKS = 4  # at Brevo, before what is missing counts as missing: it shows events some time after it took them
SAY_S = 10.0  # that the sink cannot work before a person is told
KEEP_S = 5.0  # between notes of how many calls were made

OnLook = Callable[[str, int, int], None]
"""Told of log, account, contacts, events, and contacts and events read: how many of how many."""

Say = Callable[[str], None]


class RefusedError(Exception):
    """Nothing is told, or nothing more: why, and what to do."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


class Wanted(Struct, frozen=True, kw_only=True):
    """What is asked for."""

    source: str  # URL of the broker that has the log
    config: Config
    mapping: str  # the connector file, as text
    nats_config: Path
    send_old_events: bool
    event_age_max_s: float


async def rebuild(target: Target, wanted: Wanted, *, lock: int, on_look: OnLook, say: Say) -> Certificate:
    """Do what of it is not done yet, and verify it.  `lock` is `apart.alone`'s, of the folder.

    Raises RefusedError, ReadBackError, CannotStartError, GivenUpError, nats' errors and OSError.
    """
    rebuilt = Rebuilt(target.folder / "rebuild.sqlite")
    metrics = Metrics(CollectorRegistry())
    brevo = Brevo(
        url=target.brevo.brevo_url.rstrip("/"),
        api_key=target.brevo.api_key,
        budget=Budget(target.brevo.rate_fraction, target.brevo.plan),
        metrics=metrics,
        timeout_s=target.brevo.timeout_s,
        log_calls=False,
    )
    try:
        run = _Rebuild(target, wanted, rebuilt, brevo=brevo, metrics=metrics, on_look=on_look, say=say)
        return await run.run(lock)
    finally:
        await brevo.close()
        rebuilt.close()


class _Rebuild:
    """One run."""

    def __init__(
        self,
        target: Target,
        wanted: Wanted,
        rebuilt: Rebuilt,
        *,
        brevo: Brevo,
        metrics: Metrics,
        on_look: OnLook,
        say: Say,
    ) -> None:
        self._target, self._wanted, self._rebuilt, self._brevo = target, wanted, rebuilt, brevo
        self._metrics, self._on_look, self._say = metrics, on_look, say
        self._began = time.monotonic()
        self._calls = 0  # of the sink, this run

    async def run(self, lock: int) -> Certificate:
        state = await self._begun()
        before = msgspec.structs.replace(state)
        try:
            if (stop := await preflight(self._brevo, self._wanted.config)) is not None:
                raise RefusedError(stop.why, stop.remedy)
            await self._fold(state)
            await self._look(state)
            since_ms = 0 if self._wanted.send_old_events else state.began_ms - self._age_ms
            self._warn(state, since_ms)
            if not state.told or self._rebuilt.events_unsaid(since_ms):
                state.told = False  # on disk before more is said: said is not told
                self._rebuilt.keep(state)
                await self._tell(state, since_ms, lock)
            return await self._verified(state, before)
        finally:
            self._spent(state, before)

    @property
    def _age_ms(self) -> int:
        return round(self._wanted.event_age_max_s * 1000)

    def _spent(self, state: State, before: State) -> None:
        ours = sum(
            sample.value
            for metric in self._metrics.calls.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        )
        state.seconds = before.seconds + time.monotonic() - self._began
        state.calls = before.calls + round(ours) + self._calls
        self._rebuilt.keep(state)

    # -- 1: what is rebuilt -------------------------------------------------------------------------------------

    async def _begun(self) -> State:
        account = await readback.account(self._brevo)
        state, mapping = self._rebuilt.state, self._wanted.config.hash
        again = f"use what it was begun with, or another name; or remove {self._target.folder}, if its account is emptied too"
        if state is None:
            async with connected(self._wanted.source) as source:
                sequence = await last_sequence(source, TWILIO.name)
            state = State(
                account=account, mapping=mapping, sequence=sequence, began_ms=round(time.time() * 1000)
            )
            (self._target.folder / "mapping.yaml").write_text(self._wanted.mapping, encoding="utf-8")
            self._rebuilt.keep(state)
        elif state.account != account:
            raise RefusedError(f"the rebuild {self._target.name} was begun in another Brevo account", again)
        elif state.mapping != mapping:
            raise RefusedError(
                f"the rebuild {self._target.name} was begun with mapping {state.mapping}, and the file is {mapping}",
                again,
            )
        return state

    # -- 2: what follows from the log ---------------------------------------------------------------------------

    async def _fold(self, state: State) -> None:
        if state.folded:
            return
        self._refuse_ours(sum(one.ext_id.startswith(PREFIX) for one in await readback.newest(self._brevo)))
        async with connected(self._wanted.source) as source:  # is it there, and the same?
            last = await last_sequence(source, TWILIO.name)
        if last < state.sequence:
            raise RefusedError(
                f"the log ends at {last:,}, and {state.sequence:,} was seen when the rebuild was begun",
                "is TAJO_NATS_URL that of the same deployment?",
            )
        login = login_as("tajo", self._wanted.source, os.environ)
        broker = bus.connect(self._wanted.source, service="tajo", login=login)
        try:
            await broker.connect()
            await refold(
                broker, self._target.folder, self._wanted.config, self._rebuilt,
                to=state.sequence, on_look=self._on_look,
            )  # fmt: skip
        finally:
            await broker.stop()
        state.folded = True
        self._rebuilt.keep(state)

    # -- 3: the account -----------------------------------------------------------------------------------------

    async def _look(self, state: State) -> None:
        if state.looked:
            return

        def look(_: str, read: int, count: int) -> None:
            self._on_look("account", read, count)

        ours, meet = 0, 0
        async for page in readback.pages(self._brevo, on_look=look):
            for one in page:
                phone = written("SMS", one.attributes.get("SMS"))
                ours += one.ext_id.startswith(PREFIX)
                meet += self._rebuilt.is_ours(one.email, phone)
        self._refuse_ours(ours)
        if meet:
            raise RefusedError(
                f"the account has contacts with an email or phone of our customers: {meet:,}",
                "an import would merge them with ours: delete them there, or use an empty account",
            )
        state.looked = True
        self._rebuilt.keep(state)

    def _refuse_ours(self, count: int) -> None:
        if count:
            raise RefusedError(
                f"the account holds contacts of ours already, {count:,} or more",
                "a rebuild goes into an account that has none: delete them there, or use an empty account",
            )

    # -- 4: telling ---------------------------------------------------------------------------------------------

    def _warn(self, state: State, since_ms: int) -> None:
        old = self._rebuilt.events_before(state.began_ms - self._age_ms)
        if not old:
            return
        older = f"{old:,} events are older than {self._wanted.event_age_max_s / 3600:g} h"
        if since_ms:
            self._say(f"{older} and are not sent: --send-old-events sends them")
        else:
            self._say(f"{older}: automations of that account that begin with one of them will run")

    async def _tell(self, state: State, since_ms: int, lock: int) -> None:
        async with apart.running(
            self._target.folder,
            lock=lock,
            nats_config=self._wanted.nats_config,
            environment=self._target.environment,
        ) as works:
            try:
                contacts, said, unsaid = self._rebuilt.counts()
                while some := self._rebuilt.contacts_unsaid():
                    await works.say(list(some))
                    self._rebuilt.said_contacts(one.ext_id for one, _ in some)
                await self._ended(works, "contacts", contacts)
                while events := self._rebuilt.events_unsaid(since_ms):
                    out: list[tuple[Command, bool]] = [(one, True) for one in events]
                    await works.say(out)
                    self._rebuilt.said_events(one.id for one in events)
                await self._ended(works, "events", said + unsaid - self._rebuilt.counts()[2])
                info = await works.connection.jetstream().stream_info(DEAD.name)
                state.dead, state.told = info.state.messages, True
            finally:
                self._calls = works.calls

    async def _ended(self, works: Apart, what: str, total: int) -> None:
        """Return when all that was said has ended; says why it does not go on, where that lasts."""
        why, since = "", time.monotonic()
        while (left := await works.left()) != 0:
            if left is not None:
                self._on_look(what, max(total - left, 0), total)
            now = await works.why_not()
            if now != why:
                why, since = now, time.monotonic()
            elif why and time.monotonic() - since > SAY_S:
                self._say(f"the sink waits: {why}")
                since = float("inf")
            await asyncio.sleep(apart.AGAIN_S)
        await works.why_not()  # for its calls
        self._on_look(what, total, total)

    # -- 5: is it there -----------------------------------------------------------------------------------------

    async def _verified(self, state: State, before: State) -> Certificate:
        ours = _ours(self._wanted.config)
        for look in range(LOOKS):
            if look:
                await asyncio.sleep(self._target.brevo.look_s)
            found = Found()
            try:
                await self._read(found)
                counts, first = differing(readback.compare(self._rebuilt.expected(), found, ours))
                expected, there = readback.totals(self._rebuilt.expected(), found, ours)
            finally:
                found.close()
            if not counts.keys() & {"contact_missing", "event_missing", "attribute", "list_missing"}:
                break
        self._spent(state, before)
        certificate = Certificate(
            name=self._target.name, equal=not counts and expected.hash == there.hash,
            sequence=state.sequence, mapping=state.mapping, expected=expected, found=there,
            not_sent=self._rebuilt.counts()[2], dead=state.dead, differences=counts, first=first,
            verified=rfc3339(round(time.time() * 1000)), seconds=round(state.seconds, 1), calls=state.calls,
        )  # fmt: skip
        path = self._target.folder / "certificate.json"
        path.touch(mode=0o600)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(certificate), indent=2))
        return certificate

    async def _read(self, found: Found) -> None:
        def look(what: str, read: int, count: int) -> None:
            self._on_look(f"{what} read", read, count)

        await readback.read_contacts(self._brevo, found, on_look=look)
        names: Sequence[str] = self._rebuilt.names()
        first, last = (datetime.fromtimestamp(ms / 1000, UTC) for ms in self._rebuilt.times())
        day = timedelta(days=1)  # whole days: whether Brevo takes times here is not documented
        await readback.read_events(
            self._brevo, found, names=names, since=f"{first - day:%Y-%m-%d}", until=f"{last + day:%Y-%m-%d}",
            on_look=look,
        )  # fmt: skip


def _ours(config: Config) -> Ours:
    """In an account that was empty nobody else writes what the mapping writes."""
    flex = config.flex
    lists = (flex.lists.support_contacts, flex.lists.csat_respondents)
    attributes = (field.attribute for field in config.fields.values() if field.attribute != "email")
    return Ours(frozenset(attributes), frozenset(id_ for id_ in lists if id_ is not None))
