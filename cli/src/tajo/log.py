"""`tajo log`: the raw events, as they were heard."""

import os
import secrets
import shutil
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from msgspec import Struct
from nats.aio.client import Client
from rich.markup import escape
from rich.table import Column, Table

from shared.cloudevent import Logged, to_line
from shared.heartbeat import SILENT_S
from shared.message import MSG_ID
from shared.replay import Selection
from tajo import deployment, log_import, log_reading
from tajo.asking import asking
from tajo.log_body import as_text, pretty
from tajo.log_import import Imported
from tajo.log_selection import Sequence, Since, Subjects, Task, Until, selection
from tajo.output import FAILED, NATS_URL, AsJson, NatsUrl, err, failure, out
from tajo.output import show as show_json
from tajo.progress import bar
from tajo.pseudonyms import Pseudonyms

LAST = 20  # shown where nobody says how many
LEFT_OUT_MAX = 20  # sequences told of one by one

app = typer.Typer(no_args_is_help=True, help="Raw events, as they were heard: look, export, import.")

Last = Annotated[int, typer.Option(help="So many, the latest.", min=1)]


class Line(Struct, frozen=True):
    """An event, as far as a list shows it."""

    sequence: int
    time: str
    type: str
    subject: str
    source: str
    bytes: int


@app.command()
def ls(
    nats_url: NatsUrl = NATS_URL,
    *,
    subjects: Subjects = None,
    since: Since = None,
    until: Until = None,
    sequence: Sequence = None,
    task: Task = None,
    last: Last = LAST,
    as_json: AsJson = False,
) -> None:
    """Show the latest, or the latest of a selection.  No bodies, so nothing of what customers are called."""
    what = selection(subjects, since, until, sequence, task)
    found = asking(
        nats_url, lambda broker: log_reading.latest(broker, what, last, headers_only=True), as_json=as_json
    )
    shown = [_line(one) for one in found]
    if as_json:
        show_json({"events": shown})
        return
    table = Table(Column("sequence", justify="right", no_wrap=True), Column("happened", no_wrap=True), Column("what", overflow="fold"),
                  Column("to", overflow="fold"), Column("heard by", overflow="fold"), Column("bytes", justify="right", no_wrap=True))  # fmt: skip
    for one in shown:
        table.add_row(
            str(one.sequence), one.time, escape(one.type), escape(one.subject), escape(one.source), f"{one.bytes:,}"
        )  # fmt: skip
    out.print(table if shown else "the log holds nothing of that")


@app.command()
def show(
    which: Annotated[str, typer.Argument(help="Its sequence in the log, or its id (EV…).")],
    nats_url: NatsUrl = NATS_URL,
    *,
    as_json: AsJson = False,
) -> None:
    """Show one, with its body: who the customer is may stand there, because you ask."""
    if which.isascii() and which.isdecimal():
        found = asking(
            nats_url, lambda broker: log_reading.latest(broker, selection(sequence=which), 1), as_json=as_json
        )
    else:
        found = asking(nats_url, lambda broker: _named(broker, which), as_json=as_json)
    if not found:
        raise failure(
            "no such event in the log", "`tajo log ls` shows what is there", code=FAILED, as_json=as_json
        )
    (one,) = found
    headers = one.message.headers
    trace_id = next(iter(headers.get("traceparent", "").split("-")[1:2]), "")
    if as_json:
        show_json({
            "sequence": one.sequence, "stored": one.stored, "subject": one.message.subject, "traceId": trace_id,
            "headers": headers, "body": as_text(one.message.body),
        })  # fmt: skip
        return
    table = Table(Column(), Column(overflow="fold"), show_header=False, box=None)
    for name, value in (
        ("sequence", str(one.sequence)), ("stored", one.stored), ("subject", one.message.subject), ("trace", trace_id),
        *headers.items(),
    ):  # fmt: skip
        table.add_row(name, escape(value))
    out.print(table)
    out.print(f"\n{pretty(one.message.body)}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def export(
    nats_url: NatsUrl = NATS_URL,
    *,
    subjects: Subjects = None,
    since: Since = None,
    until: Until = None,
    sequence: Sequence = None,
    task: Task = None,
    to: Annotated[Path | None, typer.Option(help="A file; else standard output.")] = None,
    redact_also: Annotated[
        list[str] | None, typer.Option(help="With --redact: a further field that says who it is.")
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Replace mails, phones, names and ids by stable fakes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write events as CloudEvents in JSON, one a line, so that they can be imported, or be a story."""
    what = selection(subjects, since, until, sequence, task)
    if redact_also and not redact:
        raise typer.BadParameter("--redact-also means nothing without --redact")
    if as_json and to is None:
        raise typer.BadParameter("--json is what is said of the file: give --to")
    pseudonyms = Pseudonyms(secrets.token_bytes(32), redact_also or ()) if redact else None
    if to is None:
        try:
            done = _exported(nats_url, what, sys.stdout.buffer, pseudonyms, as_json=as_json)
        except BrokenPipeError as error:  # whoever read it has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from error
    else:
        part = to.with_name(f"{to.name}.part")
        try:
            with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                done = _exported(nats_url, what, file, pseudonyms, as_json=as_json)
            part.replace(to)  # all of it, or what was there before
        except OSError as error:
            why = f"{to} cannot be written: {error.strerror}"
            raise failure(why, code=FAILED, as_json=as_json) from error
        finally:
            part.unlink(missing_ok=True)
    if as_json:
        show_json({"exported": done.events, "leftOut": done.left_out})
    else:
        err.print(f"{done.events:,} exported", highlight=False)
    if done.left_out:
        which = ", ".join(map(str, done.left_out[:LEFT_OUT_MAX]))
        err.print(
            f"{len(done.left_out):,} left out, because their envelope is broken: {which}", highlight=False
        )
        raise typer.Exit(FAILED)


class Exported(Struct):
    """What was written, and the sequences of what could not be."""

    events: int = 0
    left_out: list[int] = []


def _exported(
    nats_url: str, what: Selection, file: BinaryIO, pseudonyms: Pseudonyms | None, *, as_json: bool
) -> Exported:
    done = Exported()
    broken: list[BrokenPipeError | OSError] = []

    async def write(broker: Client) -> None:
        async with aclosing(log_reading.selected(broker, what, on_read=tell)) as events:
            async for one in events:
                meant = Logged(pseudonyms.of(one.message), one.sequence, one.stored) if pseudonyms else one
                try:
                    line = to_line(meant)
                except (ValueError, KeyError):
                    done.left_out.append(one.sequence)
                    continue
                try:
                    file.write(line + b"\n")
                except OSError as error:  # not the broker's
                    broken.append(error)
                    return
                done.events += 1

    with bar("exporting") as tell:
        asking(nats_url, write, as_json=as_json)
    if broken:
        raise broken[0]
    file.flush()
    return done


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What was exported; - for standard input.")],
    nats_url: NatsUrl = NATS_URL,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Also where services are at work on this log: they tell Brevo.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put exported events into this log, with the ids they had.  Doing it again changes nothing."""
    try:
        source: BinaryIO = _whole(sys.stdin.buffer) if str(file) == "-" else file.open("rb")
    except OSError as error:
        raise failure(f"{file} cannot be read: {error.strerror}", code=FAILED, as_json=as_json) from error
    with source:
        with bar("checking") as tell:
            checked = log_import.check(source, tell)
        if checked.wrong:
            raise _refused(file, checked, as_json=as_json)
        done = Imported(checked.events, checked.repeated)
        asking(
            nats_url, lambda broker: _import(broker, source, checked.ids, done, yes=yes, as_json=as_json),
            as_json=as_json, so_far=lambda: f"{done.stored:,} were stored",
        )  # fmt: skip
    if as_json:
        show_json(done)
    else:
        out.print(
            f"{done.stored - done.silent:,} of {done.events:,} stored; {done.known:,} were in the log already, "
            f"{done.repeated:,} repeated within the file", soft_wrap=True, highlight=False,
        )  # fmt: skip
        if done.forgotten:
            out.print(
                f"{done.forgotten:,} left out: they happened to somebody before they were forgotten here",
                soft_wrap=True, highlight=False,
            )  # fmt: skip
    if done.silent:
        raise failure(
            f"{done.silent:,} were not stored: the log held them within the last two hours, and holds them no more",
            "import again when two hours are over", code=FAILED, as_json=False,
        )  # fmt: skip


async def _import(
    broker: Client, file: BinaryIO, ids: set[str], done: Imported, *, yes: bool, as_json: bool
) -> None:
    if not yes and (at_work := await _at_work(broker)):
        raise failure(
            f"services are at work on this log: {', '.join(at_work)}.  What is imported they would tell Brevo",
            "stop them, give another broker with --nats-url, or say --yes", code=FAILED, as_json=as_json,
        )  # fmt: skip
    with bar("looking in the log") as tell:
        have = await log_import.known(broker, ids, tell)
    done.known = len(have)
    with bar("importing") as tell:
        await log_import.store(broker, file, have, done, tell)


async def _at_work(broker: Client) -> list[str]:
    seen = await deployment.look(broker)
    beats = seen.beats or []
    return sorted({beat.said.service for beat in beats if (seen.now - beat.at).total_seconds() < SILENT_S})


def _refused(file: Path, checked: log_import.Checked, *, as_json: bool) -> typer.Exit:
    if as_json:
        show_json({"stored": 0, "wrong": checked.wrong, "lines": checked.first_wrong})
        return typer.Exit(FAILED)
    for wrong in checked.first_wrong:
        err.print(f"{file}:{wrong.line}: {wrong.why}", markup=False, highlight=False, soft_wrap=True)
    more = checked.wrong - len(checked.first_wrong)
    and_more = f" (and {more:,} more)" if more else ""
    return failure(
        f"{checked.wrong:,} lines cannot be read{and_more}; nothing was stored", code=FAILED, as_json=False
    )


def _whole(stdin: BinaryIO) -> BinaryIO:
    """Standard input on disk, without a name: it is read twice."""
    file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by who asked
    shutil.copyfileobj(stdin, file)
    return file


async def _named(broker: Client, id_: str) -> list[Logged]:
    """The last event with this id."""
    headers = await log_reading.latest(
        broker,
        Selection(),
        1,
        headers_only=True,
        fits=lambda one: id_ in (one.message.headers.get("ce-id"), one.message.headers.get(MSG_ID)),
    )
    if not headers:
        return []
    return [one async for one in log_reading.at(broker, [headers[0].sequence])]


def _line(one: Logged) -> Line:
    headers = one.message.headers
    return Line(
        one.sequence,
        headers.get("ce-time", ""),
        headers.get("ce-type", "").removeprefix("com.twilio."),
        headers.get("ce-subject", ""),
        headers.get("ce-source", ""),
        int(headers.get("Nats-Msg-Size", len(one.message.body))),
    )
