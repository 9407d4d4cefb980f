"""`tajo forget`: ask for an erasure, watch it, and print its certificate.  What is judged stands in `certificate`."""

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import nats.errors
import typer
from nats.aio.client import Client
from rich.markup import escape
from rich.table import Table

from mapper.attributes import e164, identifiers
from shared import erasure, heartbeat, kv
from shared.erasure import Asked, Certificate, Erasure
from shared.event import rfc3339
from shared.heartbeat import Heartbeat
from shared.tombstone import NOBODYS, digest
from shared.topology import STATUS
from tajo.broker import connected, run
from tajo.output import FAILED, INTERRUPTED, NATS_URL, AsJson, NatsUrl, err, failure, out, reaching, show

LOOK_S = 0.25  # between looks how far it is
AWAY_TRIES = 300  # to reach a broker that went away, 0.2 s apart
UNBEGUN_S = 10.0  # after which we say what is waited for

Email = Annotated[
    str, typer.Option(help="A mail; - reads it from standard input, which no list of processes shows.")
]
Phone = Annotated[str, typer.Option(help="A phone in E.164, +12025550101; - reads it from standard input.")]
Customer = Annotated[str, typer.Option(help="As `tajo customer show` finds one: an external id, an ext_id, a sid; or -.")]  # fmt: skip


class RefusedError(Exception):
    """Nothing was erased, and why."""


def names_of(*, email: str, phone: str, customer: str) -> tuple[str, ...]:
    """What somebody may be called who was given so.  Raises ValueError for what is no mail, no phone, or no name at all."""
    if not (email or phone or customer).strip():
        raise ValueError("that is nobody's name: it is empty")
    if email:
        found = identifiers({"email": email}, frozenset()).get("email")
        if not found:
            raise ValueError("that is no mail")
        return (f"email:{found}",)
    if phone:
        if not e164(phone):
            raise ValueError("that is no phone: write it as +12025550101")
        return (f"phone:{e164(phone)}",)
    names = (customer, f"external:{customer}", f"email:{customer.lower()}", f"phone:{e164(customer)}")
    return tuple(name for name in names if name not in NOBODYS)


def unfinished(one: Erasure, running: Iterable[Heartbeat]) -> list[str]:
    """Who has not done their part yet.  A process that does not run holds up nobody.  Pure."""
    waited = [
        service for service in ("mapper", "brevo-sink") if not ((done := one.of(service)) and done.whole)
    ]
    ingests = [beat.instance for beat in running if beat.service == "ingest"]
    waited += [f"ingest {each}" for each in ingests if not one.of("ingest", heartbeat.no_key(each))]
    return waited


def certificate(one: Erasure, running: Sequence[Heartbeat]) -> Certificate:
    """Of an erasure that is done.  Pure."""
    unreached = [
        f"{beat.service} {beat.instance} stands by: before it works it takes them out of what it has of its own"
        for beat in running
        if beat.role == "standby"
    ]
    if not any(beat.service == "ingest" for beat in running):
        unreached.append("no ingest runs: before its spool is drained what is theirs is left out")
    unreached.append(
        "copies elsewhere: backups, plan files, exports, rebuilds by --into (TAJO_DATA_DIR/into, and their accounts), "
        "and what Twilio itself keeps"
    )
    return Certificate(
        id=one.asked.id,
        asked=rfc3339(one.asked.asked_ms),
        until=rfc3339(one.tombstone.at_ms if one.tombstone else 0),
        done=rfc3339(max(done.at_ms for done in one.done)),
        counts=tuple(count for done in one.done for count in done.counts),
        notes=tuple(note for done in one.done for note in done.notes),
        unreached=tuple(unreached),
    ).sealed()


def forget(
    *,
    email: Email = "",
    phone: Phone = "",
    customer: Customer = "",
    nats_url: NatsUrl = NATS_URL,
    as_json: AsJson = False,
) -> None:
    """Erase one person: raw log, commands, receipts, dead letters, book, ledger, spool and Brevo.

    For good.  What happened before does not come back, by no repetition, poll or replay; who writes again is a new
    customer.  Ctrl-C ends the watching only; the same command watches again.
    """
    given = [each for each in (email, phone, customer) if each]
    if len(given) != 1:
        raise typer.BadParameter("say who: one of --email, --phone and --customer")
    whom = sys.stdin.readline().strip() if given == ["-"] else given[0].strip()
    try:
        names = names_of(email=email and whom, phone=phone and whom, customer=customer and whom)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        with reaching(nats_url, as_json=as_json):
            done = run(erased(nats_url, names, lambda line: err.print(line, style="yellow", soft_wrap=True)))
    except RefusedError as error:
        raise failure(str(error), code=FAILED, as_json=as_json) from error
    except KeyboardInterrupt as error:
        err.print("It goes on without us.  The same command watches again.")
        raise typer.Exit(INTERRUPTED) from error
    if as_json:
        show(done)
    else:
        _print(done)
    if not any(count.found for count in done.counts):
        raise typer.Exit(FAILED)


async def erased(url: str, names: Sequence[str], say: Callable[[str], None]) -> Certificate:
    """Have them erased, and wait for it.  Raises RefusedError, nats' errors and OSError."""
    async with connected(url) as connection:
        connection.options["max_reconnect_attempts"] = AWAY_TRIES
        id_ = await _asked(connection, names)
        began, said = time.monotonic(), False
        while True:
            one, running = await _look(connection, id_)
            if one:
                mapper = one.of("mapper")
                if mapper and mapper.notes and not one.tombstone:
                    raise RefusedError("; ".join(mapper.notes))
                waited = unfinished(one, running)
                if not waited:
                    return certificate(one, running)
                if not said and time.monotonic() - began > UNBEGUN_S:
                    said = True
                    say(
                        f"Waiting for {', '.join(waited)}.  `tajo connectors status twilio-flex` says how they do."
                    )
            await asyncio.sleep(LOOK_S)


async def _asked(connection: Client, names: Sequence[str]) -> str:
    """The erasure of these: the one that is under way, or a new one."""
    key = await erasure.key(connection)
    whom = tuple(sorted(digest(key, name) for name in names))
    for one in (await erasure.load(connection)).ones.values():
        if one.asked.whom == whom and unfinished(one, ()):
            return one.asked.id
    new = Asked(id=secrets.token_hex(8), whom=whom, asked_ms=time.time_ns() // 1_000_000)
    await erasure.ask(connection, new)
    return new.id


async def _look(connection: Client, id_: str) -> tuple[Erasure | None, list[Heartbeat]]:
    """How far it is, and who runs; nothing while the broker is away for a moment."""
    try:
        bucket = await connection.jetstream(timeout=erasure.TIMEOUT_S).key_value(STATUS.name)
        running = [
            heartbeat.from_value(value)
            for key in await kv.keys(connection, STATUS.name)
            if (value := (await kv.read(bucket, key))[1])
        ]
        return (await erasure.load(connection)).ones.get(id_), running
    except (nats.errors.Error, OSError):
        if connection.is_closed:
            raise
        return None, []


def _print(one: Certificate) -> None:
    table = Table("where", title=f"Erasure {one.id}", title_justify="left")
    for title in ("found", "erased"):
        table.add_column(title, justify="right")
    for count in one.counts:
        table.add_row(count.where, f"{count.found:,}", f"{count.erased:,}")
    out.print(table)
    out.print(f"asked {one.asked}, done {one.done}; what happened up to {one.until} is forgotten", highlight=False, soft_wrap=True)  # fmt: skip
    for note in one.notes:
        out.print(f"note: {escape(note)}", highlight=False, soft_wrap=True)
    for each in one.unreached:
        out.print(f"not reached: {escape(each)}", highlight=False, soft_wrap=True)
    if not any(count.found for count in one.counts):
        out.print("Nobody of that name was found.")
    out.print(f"sha256 {one.hash}", highlight=False, soft_wrap=True)
