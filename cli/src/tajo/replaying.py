"""`tajo replay`: the command.  What each of its ways does stands in a module of its own."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from brevo_sink.settings import Settings as BrevoSettings
from shared.connector_file import load
from shared.event import rfc3339
from shared.replay import Asked, Selection
from shared.settings import load as load_settings
from tajo import rebuilding
from tajo import replay as work
from tajo.applying import apply
from tajo.broker import run
from tajo.installation import CONNECTOR, Installation, read
from tajo.output import NATS_URL, AsJson, NatsUrl, out, reaching, reading, show
from tajo.plan import many
from tajo.planning import plan
from tajo.selecting import SelectionError, selection
from tajo.watching import failing

MAPPING_BYTES_MAX = 1024**2  # of a connector file; a bucket's value carries it

_PLANNING = "Of --plan"
_INTO = "Of --into"
_SELECTING = "Of --plan: whom Brevo is told of again, though nothing changed; all that is given must fit"
_Mode = Annotated[bool, typer.Option("--plan", help="Say what would change; tell Brevo nothing.")]


def replay(
    *,
    plan_: _Mode = False,
    apply_: Annotated[
        Path | None,
        typer.Option("--apply", metavar="PLAN", help="Do exactly the plan of this file, and watch."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show all replays.")] = False,
    into: Annotated[
        str,
        typer.Option(
            "--into",
            metavar="NAME",
            help="Rebuild everything in another, empty Brevo account, and verify it.",
        ),
    ] = "",
    drop: Annotated[
        str,
        typer.Option(
            "--drop",
            metavar="ID",
            help="Delete its plan and book; of the one in force, the book it replaced.",
        ),
    ] = "",
    mapping: Annotated[
        Path, typer.Option(envvar="TAJO_CONFIG", help="The connector file to try.", rich_help_panel=_PLANNING)
    ] = Path("config/tajo.yaml"),
    send_old_events: Annotated[
        bool,
        typer.Option(
            "--send-old-events",
            help="Also events older than replay.event_age_max_s: automations at Brevo may begin.  Also of --into.",
            rich_help_panel=_PLANNING,
        ),
    ] = False,
    read_back: Annotated[
        bool,
        typer.Option(
            "--read-back", help="Read Brevo itself, and mend what differs.", rich_help_panel=_PLANNING
        ),
    ] = False,
    id_: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Show the plan of this replay.", rich_help_panel=_PLANNING),
    ] = None,
    out_: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Where the plan is written; else ID.plan.json.",
            dir_okay=False,
            rich_help_panel=_PLANNING,
        ),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--all", help="Print every contact and event.", rich_help_panel=_PLANNING)
    ] = False,
    subjects: Annotated[
        list[str] | None,
        typer.Option(help="Of TWILIO: twilio.*.*.taskrouter.>", rich_help_panel=_SELECTING),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="A date, 2024-01-01, or a moment.", rich_help_panel=_SELECTING)
    ] = None,
    until: Annotated[str | None, typer.Option(help="Before that.", rich_help_panel=_SELECTING)] = None,
    sequence: Annotated[
        str | None, typer.Option(help="Of TWILIO: 17, 17-40, 17- or -40.", rich_help_panel=_SELECTING)
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="The sid of a task, call or conversation.", rich_help_panel=_SELECTING),
    ] = None,
    customer: Annotated[
        list[str] | None,
        typer.Option(
            help="A mail, a phone, an external id, an ext_id; `-` reads them from standard input, one a line.",
            rich_help_panel=_SELECTING,
        ),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(envvar="TAJO_DATA_DIR", help="Where it is rebuilt.", rich_help_panel=_INTO)
    ] = Path(".tajo/data"),
    nats_config: Annotated[
        Path, typer.Option(help="Configuration of the embedded broker.", rich_help_panel=_INTO)
    ] = Path("deploy/nats/nats.conf"),
    yes: Annotated[
        bool, typer.Option("--yes", help="Of --apply: do not ask, also where old events are sent.")
    ] = False,
    nats_url: NatsUrl = NATS_URL,
    as_json: AsJson = False,
) -> None:
    """Make of the log anew what Brevo shall know: look at what would change, then do exactly that.

    Ctrl-C ends the watching alone; the mapper, which does it, goes on.
    """
    if sum(map(bool, (plan_, apply_, into, list_, drop))) != 1:
        raise typer.BadParameter("say one of --plan, --apply PLAN, --into NAME, --list, --drop ID")
    chosen = _selected(
        subjects=subjects or (), since=since, until=until, sequence=sequence, tasks=task or (),
        customers=_whom(customer or []),
    )  # fmt: skip
    about_plans = (send_old_events and not into) or read_back or id_ or out_ or whole or not chosen.empty
    if about_plans and not plan_:
        raise typer.BadParameter("a selection and what is planned go with --plan; --apply does what the plan says")  # fmt: skip
    if id_ == "":
        raise typer.BadParameter("an empty text names no replay", param_hint="--id")
    if id_ and (send_old_events or read_back or not chosen.empty):
        raise typer.BadParameter("--id shows what was asked before, as it was asked")
    if out_ and not out_.parent.is_dir():
        raise typer.BadParameter(f"{out_.parent} is no folder", param_hint="--out")
    if plan_:
        installation = _brevo(as_json=as_json) if read_back else None
        asked = id_ or _asked(
            mapping, chosen, send_old_events=send_old_events, expected=read_back, as_json=as_json
        )
        plan(asked, installation=installation, out_file=out_, whole=whole, nats_url=nats_url, as_json=as_json)
    elif apply_:
        apply(apply_, yes=yes, nats_url=nats_url, as_json=as_json)
    elif into:
        rebuilding.into(
            into, config=mapping, data_dir=data_dir, nats_config=nats_config, nats_url=nats_url,
            send_old_events=send_old_events, as_json=as_json,
        )  # fmt: skip
    elif drop:
        _drop(drop, nats_url=nats_url, as_json=as_json)
    else:
        _list(nats_url=nats_url, as_json=as_json)


def _selected(**words: Any) -> Selection:
    try:
        return selection(**words)
    except SelectionError as error:
        raise typer.BadParameter(str(error)) from error


def _whom(given: list[str]) -> list[str]:
    """`-` stands for the lines of standard input: what a command line says, others on this machine can see."""
    return [line for one in given for line in (_lines(sys.stdin.read()) if one == "-" else [one])]


def _lines(text: str) -> list[str]:
    """Those that are not blank; a blank one where all are, for nobody is not everybody."""
    return [line for line in text.splitlines() if line.strip()] or [""]


def _asked(
    mapping: Path, chosen: Selection, *, send_old_events: bool, expected: bool, as_json: bool
) -> Asked:
    """What the mapper is asked; the file is looked at first, as `tajo mapping check` does."""
    with reading(as_json=as_json):
        config = load(mapping)
    text = mapping.read_text(encoding="utf-8")
    if len(text) > MAPPING_BYTES_MAX:
        raise typer.BadParameter(f"{mapping} has more than {MAPPING_BYTES_MAX:,} bytes", param_hint="--mapping")  # fmt: skip
    now_ms = round(time.time() * 1000)
    return Asked(
        id=work.new_id(now_ms),
        mapping=text,
        selection=chosen,
        send_old_events=send_old_events,
        event_age_max_s=config.flex.replay.event_age_max_s,
        expected=expected,
        at_ms=now_ms,
    )


def _brevo(*, as_json: bool) -> Installation:
    """What is needed to read Brevo; looked at before anything is asked."""
    with reading(as_json=as_json):
        installation = read(CONNECTOR, os.environ, {})
        load_settings(BrevoSettings, installation.environ)
    return installation


def _drop(id_: str, *, nats_url: str, as_json: bool) -> None:
    with failing(as_json=as_json), reaching(nats_url, as_json=as_json):
        stays = run(work.drop(nats_url, id_))
    if as_json:
        show({"id": id_, "state": "dropped", "inForce": stays})
        return
    book = "the book it replaced; its own is in force" if stays else "its book"
    out.print(f"{id_} is dropped: the mapper deletes {book}.  Its plan is deleted.", highlight=False)


def _list(*, nats_url: str, as_json: bool) -> None:
    with reaching(nats_url, as_json=as_json):
        found = run(work.listed(nats_url))
    in_force = work.in_force(found)
    if as_json:
        show(
            [
                {
                    "id": one.asked.id, "state": one.state, "inForce": one.asked.id == in_force, "why": one.why,
                    "mapping": one.mapping, "sequence": one.sequence, "to": one.to, "plan": one.plan,
                    "commands": one.commands, "applied": rfc3339(one.applied_ms) if one.applied_ms else None,
                }
                for one in found
            ]
        )  # fmt: skip
        return
    table = Table("replay", "is", "mapping", Column("log", justify="right"), Column("commands", justify="right"), Column("why", overflow="fold"))  # fmt: skip
    for one in found:
        table.add_row(
            one.asked.id, f"{one.state}, in force" if one.asked.id == in_force else one.state, one.mapping,
            f"{one.sequence:,} of {one.to:,}", f"{one.commands:,}", escape(one.why),
        )  # fmt: skip
    if found:
        out.print(table, highlight=False)
    out.print(many(len(found), "replay"), highlight=False)
