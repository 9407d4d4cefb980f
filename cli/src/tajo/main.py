"""tajo: the command line.  Exit codes: 0 done, 1 a check failed, 2 wrong usage, 78 the settings cannot be used."""

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import nats.errors
import nats.js.errors
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ingest.main import judge_of
from ingest.settings import Settings as IngestSettings
from shared.bootstrap import bootstrap as make_streams
from shared.bus import NotPublishedError
from shared.config import Config, ConfigError, load
from shared.credentials import environment
from shared.event import rfc3339
from shared.settings import SettingsError
from shared.settings import load as load_settings
from tajo import connectors, customer, dlq
from tajo import quarantine as refused
from tajo.supervise import GivenUpError
from tajo.up import SERVICES, CannotStartError
from tajo.up import up as run_everything

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,  # they hold secrets
    help="Twilio Flex → Brevo, event-sourced.",
)
app.add_typer(connectors.app, name="connectors")
mapping = typer.Typer(no_args_is_help=True, help="Check and describe the connector file.")
app.add_typer(mapping, name="mapping")
customers = typer.Typer(no_args_is_help=True, help="What is known of a customer, and why.")
app.add_typer(customers, name="customer")
quarantine = typer.Typer(no_args_is_help=True, help="Webhooks refused for a wrong signature, kept for 24 h.")
app.add_typer(quarantine, name="quarantine")
app.add_typer(dlq.app, name="dlq")

out, err = Console(), Console(stderr=True)

ConfigFile = Annotated[Path, typer.Argument(envvar="TAJO_CONFIG", help="The connector file.")]


@app.command()
def up(
    nats_config: Annotated[Path, typer.Option(help="Configuration of the embedded broker.")] = Path(
        "deploy/nats/nats.conf"
    ),
) -> None:
    """Run everything on this machine: broker, streams and services, until Ctrl-C."""
    try:
        asyncio.run(
            run_everything(config=nats_config, say=lambda line: err.print(f"[bold]tajo[/bold] {line}"))
        )
    except (CannotStartError, GivenUpError, nats.errors.Error) as error:
        err.print(f"[red]tajo cannot run:[/red] {escape(str(error))}")
        raise typer.Exit(os.EX_CONFIG) from error


@app.command()
def run(service: Annotated[str, typer.Argument(help=", ".join(SERVICES))]) -> None:
    """Run one service in the foreground."""
    if service not in SERVICES:
        raise typer.BadParameter(f"no service is called {service}; there are {', '.join(SERVICES)}")
    importlib.import_module(f"{service.replace('-', '_')}.main").main()


@app.command()
def bootstrap(
    nats_url: Annotated[
        str, typer.Option(envvar="TAJO_NATS_URL", help="NATS server.")
    ] = "nats://127.0.0.1:4222",
) -> None:
    """Create or update the streams and consumers.  Repeating it changes nothing."""
    try:
        asyncio.run(make_streams(nats_url))
    except (nats.errors.Error, OSError) as error:
        where = urlsplit(nats_url).hostname or "that address"  # never what stands before the @
        err.print(
            f"[red]no broker at {escape(where)}:[/red] {type(error).__name__}; is it running, and is TAJO_NATS_URL right?"
        )
        raise typer.Exit(1) from error
    out.print("streams and consumers are as shared/topology.py says")


@customers.command()
def show(
    whom: Annotated[str, typer.Argument(help="A mail, a phone (+…), an external id, an ext_id or a sid.")],
    config: Annotated[Path, typer.Option(envvar="TAJO_CONFIG", help="The connector file.")] = Path(
        "config/tajo.yaml"
    ),
    data_dir: Annotated[
        Path, typer.Option(envvar="TAJO_DATA_DIR", help="Where the mapper keeps its book.")
    ] = Path(".tajo/data"),
) -> None:
    """Explain a customer: identifiers, interactions, each attribute with what made it, and what Brevo was told."""
    try:
        customer.show(customer.find(data_dir / "mapper/book.sqlite", load(config), whom), out)
    except (customer.NobodyError, ConfigError) as error:
        err.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error


@mapping.command()
def check(file: ConfigFile = Path("config/tajo.yaml")) -> None:
    """Say whether the file can be used; every mistake with its line and column."""
    try:
        config = load(file)
    except ConfigError as error:
        for problem in error.problems:
            err.print(
                f"{file}:{problem.line}:{problem.column}: {problem.what}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        raise typer.Exit(1) from error
    out.print(
        _table(
            "Attributes",
            "Twilio",
            "Brevo",
            [(s, f"{f.attribute} ({f.type})") for s, f in config.fields.items()],
        )
    )
    out.print(
        _table("Events", "Twilio", "Brevo", [(type_, rule.name) for type_, rule in config.rules.items()])
    )
    if not config.fields and not config.rules:
        err.print(f"{file} maps nothing: write field_mapping and event_mapping", style="yellow", markup=False)
    out.print(f"{file} is good; mapping {config.hash}")


@mapping.command()
def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(schema_of_file()), indent=2).decode() + "\n")


@quarantine.command()
def ls(
    nats_url: Annotated[
        str, typer.Option(envvar="TAJO_NATS_URL", help="NATS server.")
    ] = "nats://127.0.0.1:4222",
    last: Annotated[int, typer.Option(help="Show so many, the latest.")] = 50,
) -> None:
    """Show what is there: when, where, how large, and the sids it names.  Nothing else of it is shown."""
    try:
        requests = asyncio.run(refused.listed(nats_url))
    except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
        raise _no_quarantine(nats_url, error) from error
    table = Table("received", "route", "method", "bytes", "sids")
    for one in requests[-last:] if last > 0 else ():
        table.add_row(
            rfc3339(one.heard_ms),
            one.path,
            one.method,
            str(len(one.body or one.query)),
            refused.sids(one),
        )
    out.print(table)
    out.print(f"{len(requests)} in quarantine")


@quarantine.command()
def recheck() -> None:
    """Check each signature again, with the settings as they are now; take what is right into the log.

    Reads the settings of ingest: TWILIO_AUTH_TOKEN, TAJO_PUBLIC_URL, TAJO_CONFIG, TAJO_NATS_URL.
    """
    try:
        settings = load_settings(IngestSettings, environment(os.environ))
        judge = judge_of(settings, load(settings.config))
    except (SettingsError, ConfigError) as error:
        err.print(str(error), highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(os.EX_CONFIG) from error
    try:
        done = asyncio.run(refused.recheck(settings.nats_url, judge))
    except (NotPublishedError, nats.errors.Error, nats.js.errors.Error, OSError) as error:
        raise _no_quarantine(settings.nats_url, error) from error
    out.print(f"{done.recovered} of {done.seen} are rightly signed, and in the log now")
    if done.recovered < done.seen:
        out.print(
            f"{done.seen - done.recovered} stay: no token of TWILIO_AUTH_TOKEN signed them for {judge.public_url}",
            soft_wrap=True,
        )


def _no_quarantine(url: str, error: Exception) -> typer.Exit:
    err.print(
        f"[red]quarantine at {url}:[/red] {type(error).__name__}; is the broker running, the address right, "
        "and `tajo bootstrap` done?",
        soft_wrap=True,
    )
    return typer.Exit(1)


def schema_of_file() -> dict[str, object]:
    """The schema, as it is shipped in config/tajo.schema.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tajo connector file",
        **msgspec.json.schema(Config),
    }


def _table(title: str, left: str, right: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(left, right, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def main() -> None:
    """Entry point."""
    app()
