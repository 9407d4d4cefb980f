"""`tajo replay --plan`: have the past planned anew, watch that, and say what would change."""

from pathlib import Path

import typer
from rich.markup import escape

from shared import log
from shared.replay import Asked, Plan, Replay, State
from tajo import plan_file, replay
from tajo.broker import run
from tajo.drift import Difference
from tajo.drifted import Drift, counted
from tajo.held import read_back
from tajo.installation import Installation
from tajo.output import INTERRUPTED, err, out, reaching, reading, show
from tajo.plan import SHOWN, changes, many
from tajo.plan import show as show_plan
from tajo.watching import bars, failing, nobody_begins

_FOUND = {
    "contact_missing": "is not there",
    "contact_extra": "is there, and nothing says so",
    "email": "has another email: {found} instead of {expected}",
    "attribute": "{what}: {found} instead of {expected}",
    "list_missing": "is not in list {what}",
    "list_extra": "is in list {what}, and nothing says so",
    "event_missing": "lacks event {what}: what was told is not told again",
    "event_doubled": "has event {what} {found} times",
    "event_extra": "has event {what}, which is not told under this mapping",
    "event_elsewhere": "has event {what} at another customer's contact: events cannot be moved",
    "event_time": "has event {what} at {found} instead of {expected}",
}


def plan(
    asked: Asked | str,
    *,
    installation: Installation | None,
    out_file: Path | None,
    whole: bool,
    nats_url: str,
    as_json: bool,
) -> None:
    """Plan what is asked, or show the plan of a replay that was asked before, by its id.

    With an installation, hold Brevo itself against the plan, and plan again with what was found.
    """
    id_ = asked if isinstance(asked, str) else asked.id
    drift: Drift | None = None
    with failing(as_json=as_json), reading(as_json=as_json):
        try:
            with reaching(nats_url, as_json=as_json):
                if isinstance(asked, Asked):
                    run(replay.ask(nats_url, asked))
                made = _planned(nats_url, id_)
                if installation:
                    drift = _read_back(nats_url, installation, made)
                    if drift.again:
                        run(replay.ask_again(nats_url, id_, drift.again))
                        made = _planned(nats_url, id_)
        except KeyboardInterrupt as error:
            err.print(
                f"The mapper goes on with it, and tells Brevo nothing.  `tajo replay --plan --id {id_}` shows the plan; "
                f"`tajo replay --drop {id_}` gives it up.",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
            raise typer.Exit(INTERRUPTED) from error
        path = out_file or Path(f"{id_}.plan.json")
        plan_file.write(made, path)
    if as_json:
        show({"file": str(path), "hash": made.hash, "plan": made, "readBack": _told(drift)})
    else:
        _print(made, drift, path, whole=whole)


def _planned(nats_url: str, id_: str) -> Plan:
    """Once the mapper has made it, with a bar while it folds the log."""
    with bars() as shown:
        bar = shown.add_task("the log", total=None, said="")
        begins = nobody_begins("asked")
        first = 0

        def on_look(now: Replay) -> None:
            nonlocal first
            begins(now)
            if now.state == "folding" and now.to:
                first = first or now.sequence
                seconds = shown.tasks[bar].elapsed or 0.0
                rate = (now.sequence - first) / seconds if seconds else 0.0
                said = f"{now.sequence:,} of {now.to:,} events, {rate:,.0f}/s {now.why}"
                shown.update(bar, total=now.to, completed=now.sequence, said=escape(said))
            else:
                shown.update(bar, said=escape(now.why))

        until: tuple[State, ...] = (
            "planned",
            "applying",
            "applied",
            "refused",
        )  # one that was made can be looked at again
        made = run(replay.watch(nats_url, id_, until, on_look))
        return run(replay.planned(nats_url, made))


def _read_back(nats_url: str, installation: Installation, made: Plan) -> Drift:
    log.set_up("tajo", level="error")
    with bars() as shown:
        tasks = {}

        def on_look(what: str, read: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=None, said="")
            shown.update(tasks[what], total=of, completed=read, said=f"{read:,} of {of:,}")

        expected = run(replay.expected(nats_url, made.id))
        return run(read_back(nats_url, installation, made, expected, on_look))


def _print(made: Plan, drift: Drift | None, path: Path, *, whole: bool) -> None:
    show_plan(made, out, whole=whole)
    if drift:
        _print_drift(drift, whole=whole)
    out.print()
    if not changes(made):
        out.print("Brevo would be told nothing.")
    if made.mapping != made.mapping_before:
        out.print(
            "Before it is applied, make this mapping the mapper's connector file (TAJO_CONFIG); nothing is to be restarted.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    out.print(
        f"Written to {path}, which names customers.  `tajo replay --apply {path}` does exactly this.",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


def _print_drift(drift: Drift, *, whole: bool) -> None:
    out.print(
        f"\n[bold]Brevo itself[/bold]: {many(drift.contacts, 'contact')} and {many(drift.events, 'event')} of ours read, "
        f"{many(len(drift.differences), 'difference')} that the plan does not explain; events since {drift.until} not looked for",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    shown = drift.differences if whole else drift.differences[:SHOWN]
    for one in shown:
        out.print(f"  {_difference(one)}", highlight=False, soft_wrap=True)
    if more := len(drift.differences) - len(shown):
        out.print(f"  … {more:,} more: --all shows them", highlight=False)
    if drift.again:
        out.print(f"  {many(len(drift.again), 'contact')} will be told again, by this plan", highlight=False)


def _difference(one: Difference) -> str:
    said = _FOUND[one.kind].format(what=one.what, expected=_value(one.expected), found=_value(one.found))
    return escape(f"{one.ext_id or 'a contact that is not ours'} {said}")


def _value(value: object) -> str:
    return "nothing" if value is None else str(value)


def _told(drift: Drift | None) -> object:
    if drift is None:
        return None
    return {
        "contacts": drift.contacts,
        "events": drift.events,
        "until": drift.until,
        "counts": counted(drift),
        "differences": drift.differences,
        "again": drift.again,
    }
