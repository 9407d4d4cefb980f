"""`tajo connectors sync` and `verify`: the commands, and how a backfill is watched."""

import sys
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from shared.backfill import Asked, Backfill
from shared.config import Resource
from tajo import sync as reads
from tajo.broker import run
from tajo.installing import Name
from tajo.output import FAILED, INTERRUPTED, NATS_URL, AsJson, NatsUrl, err, failure, out, reaching, show

UNBEGUN_S = 10.0  # after which we say that nobody begins


def sync(
    name: Name,  # noqa: ARG001 - there is one
    *,
    type_: Annotated[
        str,
        typer.Option("--type", help="incremental: what came since the last sync; full: all since --since."),
    ] = "incremental",
    resources: Annotated[
        str,
        typer.Option(
            help="By comma: tasks, conversations, messages, open_tasks, workers, task_queues, statistics, channels."
        ),
    ] = ",".join(reads.USUAL),
    since: Annotated[str, typer.Option(help="A date, 2024-01-01; else 30 days ago.")] = "",
    channels: Annotated[str, typer.Option(help="By comma: voice, sms, whatsapp, webchat, …; else all.")] = "",
    nats_url: NatsUrl = NATS_URL,
    as_json: AsJson = False,
) -> None:
    """Read the past into the log.  Ctrl-C stops it, and the same command goes on where it was.

    The poller reads; this asks it to, and watches.  What is in the log already is not stored again.
    """
    ended = _watched(nats_url, _asked(type_, resources, since, channels), as_json=as_json)
    if as_json:
        show(reads.told(ended))
    else:
        out.print(_ends(ended))
        for one in ended:
            if one.gone or one.why:
                out.print(f"  {one.asked.resource}: {one.gone or one.why}", soft_wrap=True, highlight=False)
    _leave(ended)


def verify(
    name: Name,  # noqa: ARG001 - there is one
    since: Annotated[str, typer.Option(help="A date, 2024-01-01; else 29 days ago: Twilio keeps 30.")] = "",
    nats_url: NatsUrl = NATS_URL,
    as_json: AsJson = False,
) -> None:
    """Hold the log against Twilio: of each day's tasks, how many webhooks told of, and what was missed and fetched."""
    ended = _watched(nats_url, _verified(since or reads.days_ago(29)), as_json=as_json)
    found = ended[0].count.days
    if as_json:
        rows = [
            {"day": day, "known": n.known, "byWebhook": n.told, "byPolling": n.found, "fetchedNow": n.fetched}
            for day, n in sorted(found.items())
        ]
        show(
            {
                "state": ended[0].state,
                "why": ended[0].why,
                "unreadable": ended[0].count.unreadable,
                "days": rows,
            }
        )
    else:
        table = Table("day (UTC)")
        for title in ("tasks at Twilio", "told by webhook", "found by polling", "fetched now"):
            table.add_column(title, justify="right")
        for day, n in sorted(found.items()):
            table.add_row(day, f"{n.known:,}", f"{n.told:,}", f"{n.found:,}", f"{n.fetched:,}")
        if found:
            out.print(table)
        known, fetched = sum(n.known for n in found.values()), sum(n.fetched for n in found.values())
        if ended[0].count.unreadable:
            out.print(
                f"[red]{ended[0].count.unreadable:,} of Twilio's events cannot be read:[/red] `tajo dlq ls`"
            )
        elif ended[0].state == "done" and not found:
            out.print("Twilio knows of no task in that time.")
        elif ended[0].state == "done":
            out.print(
                f"All {known:,} tasks that Twilio knows are in the log; {fetched:,} of them since just now."
            )
        elif ended[0].why:
            out.print(f"[red]not finished:[/red] {escape(ended[0].why)}", soft_wrap=True)
    _leave(ended)


def _asked(type_: str, resources: str, since: str, channels: str = "") -> list[Asked]:
    try:
        return reads.asks(type_=type_, resources=resources, since=since, channels=channels)
    except reads.WrongWordError as error:
        raise typer.BadParameter(str(error)) from error


def _verified(since: str) -> list[Asked]:
    return [msgspec.structs.replace(one, verify=True) for one in _asked("full", "tasks", since)]


def _leave(ended: list[Backfill]) -> None:
    if any(one.state != "done" or (one.asked.verify and one.count.unreadable) for one in ended):
        raise typer.Exit(FAILED)


def _watched(nats_url: str, asked: list[Asked], *, as_json: bool) -> list[Backfill]:
    """Have it read, with a bar for each resource; on Ctrl-C stop it and leave."""
    bars = Progress(
        TextColumn("{task.description:<13}"), BarColumn(30), TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[said]}"), TimeRemainingColumn(), console=err, transient=True,
        disable=not err.is_terminal,
    )  # fmt: skip
    seen: dict[Resource, TaskID] = {}
    last: list[Backfill] = []
    looks = 0

    def look(looked: list[Backfill]) -> None:
        nonlocal looks
        looks += 1
        last[:] = looked
        for one in looked:
            resource = one.asked.resource
            if resource not in seen:
                seen[resource] = bars.add_task(resource, total=1.0, said="")
            bar = bars.tasks[seen[resource]]
            read = one.count.read + one.under_way
            rate = read / bar.elapsed if bar.elapsed else 0.0
            said = f"{read:,} read, {one.count.missed:,} new, {rate:,.0f}/s {one.why or ''}"
            bars.update(seen[resource], completed=reads.share(one), said=escape(said))
        if looks == round(UNBEGUN_S / reads.LOOK_S) and all(one.state == "waiting" for one in looked):
            err.print(
                "The poller has not begun yet: does it run, and are its credentials right? `tajo connectors status twilio-flex` says.",
                style="yellow", soft_wrap=True,
            )  # fmt: skip

    try:
        with reaching(nats_url, as_json=as_json), bars:
            return run(reads.sync(nats_url, asked, look))
    except reads.BusyError as error:
        raise failure(str(error), code=FAILED, as_json=as_json) from error
    except KeyboardInterrupt as error:
        err.print("Stopped.  The same command goes on from there.")
        if last and sys.stdout.isatty():
            out.print(_ends(last))
        raise typer.Exit(INTERRUPTED) from error


def _ends(ended: list[Backfill]) -> Table:
    table = Table("resource", "", title="What was read", title_justify="left")
    for title in ("read", "new in the log", "unreadable"):
        table.add_column(title, justify="right")
    for one in ended:
        count = one.count
        table.add_row(
            one.asked.resource, one.state, f"{count.read:,}", f"{count.missed:,}", f"{count.unreadable:,}"
        )
    return table
