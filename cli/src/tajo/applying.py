"""`tajo replay --apply`: have a plan done, and watch until Brevo was told."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import nats.errors
import nats.js.errors
import typer
from rich.progress import BarColumn, Progress, TextColumn

from shared.replay import Plan, Replay
from tajo import plan_file, replay
from tajo.broker import connected, run
from tajo.deployment import look
from tajo.left import Left, left, seconds_left
from tajo.output import INTERRUPTED, err, out, reaching, show
from tajo.plan import AUTOMATIONS, many, old_events
from tajo.replay import AWAY_TRIES
from tajo.status import judge
from tajo.up import SERVICES
from tajo.watching import bars, failing, nobody_begins

LOOK_S = 1.0  # between looks what is left: each is some twenty requests to the broker
STILL = 2  # looks in a row that find nothing left: the first may come before the last command has


def apply(file: Path, *, yes: bool, nats_url: str, as_json: bool) -> None:
    """Do exactly this plan; again, go on watching."""
    with failing(as_json=as_json):
        plan = plan_file.read(file)
        try:
            with reaching(nats_url, as_json=as_json):
                if replay.to_apply(run(replay.find(nats_url, plan.id)), plan):
                    _ask(plan, yes=yes, as_json=as_json)
                    run(replay.apply(nats_url, plan))
                applied = _applied(nats_url, plan.id)
                first, last = _told(nats_url)
        except KeyboardInterrupt as error:
            err.print("What was begun goes on without this.  The same command watches it again.", highlight=False)  # fmt: skip
            raise typer.Exit(INTERRUPTED) from error
    dead = max(last.dead - first.dead, 0)
    if as_json:
        show(
            {
                "id": plan.id,
                "state": applied.state,
                "mapping": plan.mapping,
                "commands": applied.commands,
                "deadLetters": dead,
            }
        )
        return
    out.print(
        f"Mapping {plan.mapping} is in force; {many(applied.commands, 'command')} of {plan.id} said, and Brevo was told all that waited.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if dead:
        out.print(f"[yellow]{many(dead, 'dead letter')} came meanwhile:[/yellow] `tajo dlq ls` says why")


def _ask(plan: Plan, *, yes: bool, as_json: bool) -> None:
    """Whoever sends events of the past must mean it."""
    old = old_events(plan)
    if not old:
        return
    if not as_json:
        err.print(
            f"{many(old, 'event')} that happened longer ago will be sent.  {AUTOMATIONS}",
            style="yellow", highlight=False, soft_wrap=True,
        )  # fmt: skip
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            f"{many(old, 'event')} of the past would be sent, and nobody is here to be asked: say --yes"
        )
    typer.confirm("Send them?", abort=True, err=True)


def _applied(nats_url: str, id_: str) -> Replay:
    """Once the mapper has done it."""
    with bars() as shown:
        bar = shown.add_task("applying", total=None, said="")
        begins = nobody_begins("planned")

        def on_look(now: Replay) -> None:
            shown.update(bar, said=now.why)
            begins(now)

        return run(replay.watch(nats_url, id_, ("applied",), on_look))


def _told(nats_url: str) -> tuple[Left, Left]:
    """What was left at first and in the end."""
    seen: list[Left] = []
    with Progress(
        TextColumn("Brevo is told"), BarColumn(30), TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[said]}"), console=err, transient=True, disable=not err.is_terminal,
    ) as shown:  # fmt: skip
        bar = shown.add_task("", total=None, said="")
        said_why = ""

        def on_look(now: Left) -> None:
            nonlocal said_why
            seen[1:] = [now]  # the first stays
            total, said = _bar(seen[0], now, shown.tasks[bar].elapsed or 0.0)
            shown.update(bar, total=total, completed=total - (now.commands or 0), said=said)
            if now.why and now.why != said_why:
                err.print(f"Brevo is told nothing just now: {now.why}", style="yellow", markup=False, soft_wrap=True)  # fmt: skip
            said_why = now.why

        run(_until_nothing_is_left(nats_url, on_look))
    return seen[0], seen[-1]


def _bar(first: Left, now: Left, seconds: float) -> tuple[int, str]:
    """How long the bar is, and what stands beside it."""
    commands = now.commands or 0
    total = max(first.commands or 0, commands)
    eta_s = seconds_left(commands, done=total - commands, seconds=seconds, per_second=now.per_second)
    eta = "" if eta_s is None else f", {span(eta_s)} left"
    return total, f"{commands:,} commands wait{eta}"


def span(seconds: float) -> str:
    """A length of time, as one says it."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


async def _until_nothing_is_left(nats_url: str, on_look: Callable[[Left], None]) -> None:
    """Of what may wait.  What others say meanwhile that may wait, a backfill, is waited for too."""
    async with connected(nats_url) as connection:
        # To begin with there were few: is it there at all?
        connection.options["max_reconnect_attempts"] = AWAY_TRIES
        still = 0
        while True:
            try:
                now = left(judge(await look(connection), tuple(SERVICES)))
            except (nats.errors.Error, OSError):
                if connection.is_closed:
                    raise
            else:
                if now.commands is None:
                    raise nats.js.errors.NotFoundError
                on_look(now)
                still = still + 1 if not now.commands else 0
                if still == STILL:
                    return
            await asyncio.sleep(LOOK_S)
