"""`tajo connectors status`: what is printed."""

import typer
from rich.markup import escape
from rich.table import Column, Table

from tajo import deployment
from tajo.broker import run
from tajo.installing import Name
from tajo.output import FAILED, NATS_URL, AsJson, NatsUrl, out, reaching, show
from tajo.status import Finding, Lag, Service, Status

_MARKS = {"error": "[red]✗[/red]", "warning": "[yellow]![/yellow]"}


def status(connector: Name, nats_url: NatsUrl = NATS_URL, *, as_json: AsJson = False) -> None:
    """Say whether it is connected, how far it is, and what a person must do.  Exit code 1: not connected."""
    with reaching(nats_url, as_json=as_json):
        found = run(deployment.status(nats_url))
    if as_json:
        show(found)
    else:
        _print(connector, found)
    if not found.connected:
        raise typer.Exit(FAILED)


def _print(connector: str, found: Status) -> None:
    said = "[green]✓[/green] {} is connected" if found.connected else "[red]✗[/red] {} is not connected"
    out.print(said.format(connector))
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("lastSync", found.last_sync or "never"),
        ("lastEvent", found.last_event or "never"),
        ("conversationsTracked", _number(found.conversations_tracked)),
        ("customersLinked", _number(found.customers_linked)),
        ("agentsMonitored", _number(found.agents_monitored)),
        ("lag", "; ".join(f"{name} {_lag(lag)}" for name, lag in found.lag.items()) or "not known"),
        ("deadLetters", _number(found.dead_letters)),
        ("quarantined", _number(found.quarantined)),
        ("spooled", _number(found.spooled)),
        ("inDoubt", _number(found.in_doubt)),
        ("paused", escape(found.paused or "no")),
    ):
        facts.add_row(f"  {name}", value)
    out.print(facts, highlight=False)
    if found.services:
        table = Table("service", "is", "heard", Column("instance", overflow="fold"))
        for one in found.services:
            table.add_row(one.service, _is(one), f"{one.heard_ago_s:.0f} s ago", escape(one.instance))
        out.print(table, highlight=False)
    for finding in found.findings:
        _say(finding)


def _say(finding: Finding) -> None:
    what = f"{_MARKS[finding.level]} {escape(finding.what)}: {escape(finding.cause)}"
    out.print(what, highlight=False, soft_wrap=True)
    out.print(f"  {escape(finding.remedy)}", highlight=False, soft_wrap=True)


def _is(one: Service) -> str:
    if one.role == "silent":
        return "[red]silent[/red]"
    if not one.ready:
        return "[red]not ready[/red]"
    return one.role


def _number(value: int | None) -> str:
    return "not known" if value is None else f"{value:,}"


def _lag(lag: Lag) -> str:
    return f"{lag.pending:,} + {lag.in_hand:,} in hand" if lag.in_hand else f"{lag.pending:,}"
