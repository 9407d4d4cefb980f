"""tajo: the command line.  How each command ends stands in output.py."""

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import nats.errors
import typer
from rich.table import Column, Table

from ingest.settings import Settings as IngestSettings
from shared.bootstrap import Replicas
from shared.bootstrap import bootstrap as make_streams
from shared.config import Config
from shared.connector_file import ConfigError, load
from shared.credentials import environment
from shared.log import set_up
from shared.login import login_as, new_password
from shared.permissions import USERS, server_configuration
from shared.settings import load as load_settings
from shared.topology import BUCKETS, CONSUMERS, OBJECT_STORES, STREAMS
from tajo import connectors, customer, dlq, log, preview, replaying, stories
from tajo import quarantine as refused
from tajo.broker import run as until_done
from tajo.forget import forget
from tajo.output import (
    CODES,
    FAILED,
    NATS_URL,
    UNAVAILABLE,
    UNUSABLE,
    AsJson,
    NatsUrl,
    err,
    failure,
    out,
    reaching,
    reading,
    show,
)
from tajo.supervise import GivenUpError
from tajo.trace import trace
from tajo.up import SERVICES, CannotStartError, module
from tajo.up import up as run_everything

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,  # they hold secrets
    help="Twilio Flex → Brevo, event-sourced.",
    epilog=CODES,
)
app.add_typer(connectors.app, name="connectors")
mapping = typer.Typer(
    no_args_is_help=True, help="Check the connector file, preview what it does, and test it."
)
app.add_typer(mapping, name="mapping")
customers = typer.Typer(no_args_is_help=True, help="What is known of a customer, and why.")
app.add_typer(customers, name="customer")
quarantine = typer.Typer(no_args_is_help=True, help="Webhooks refused for a wrong signature, kept for 24 h.")
app.add_typer(quarantine, name="quarantine")
app.add_typer(dlq.app, name="dlq")
app.command("replay")(replaying.replay)
app.add_typer(log.app, name="log")
mapping.command("preview")(preview.preview)
mapping.command("test")(stories.run_stories)
app.command()(forget)
app.command()(trace)

ConfigFile = Annotated[Path, typer.Argument(envvar="TAJO_CONFIG", help="The connector file.")]
CONFIG = Path("config/tajo.yaml")


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
        code = UNAVAILABLE if isinstance(error, nats.errors.Error) else UNUSABLE
        raise failure(f"tajo cannot run: {error}", code=code, as_json=False) from error


@app.command()
def run(service: Annotated[str, typer.Argument(help=", ".join(SERVICES))]) -> None:
    """Run one service in the foreground."""
    if service not in SERVICES:
        raise typer.BadParameter(f"no service is called {service}; there are {', '.join(SERVICES)}")
    importlib.import_module(module(service)).main()


@app.command()
def bootstrap(nats_url: NatsUrl = NATS_URL, *, as_json: AsJson = False) -> None:
    """Create or update the streams, consumers and buckets.  Repeating it changes nothing."""
    with reaching(nats_url, as_json=as_json):
        login, told = login_as("tajo", nats_url, os.environ), load_settings(Replicas, os.environ)
        until_done(make_streams(nats_url, login=login, replicas=told.replicas))
    made = {
        "streams": [one.name for one in STREAMS],
        "consumers": [one.durable for one in CONSUMERS],
        "buckets": [one.name for one in BUCKETS],
        "object stores": [one.name for one in OBJECT_STORES],
    }
    if as_json:
        show(made)
        return
    for kind, names in made.items():
        out.print(f"{kind}: {', '.join(names)}", highlight=False)


@app.command("nats-config")
def nats_config(
    *,
    passwords: Annotated[
        bool,
        typer.Option("--passwords", help="Print new passwords instead, as lines of an environment file."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the broker's users and what each may: deploy/nats/users.conf."""
    if passwords:
        made = {one.password: new_password() for one in USERS.values()}
        text = "".join(f"{name}={value}\n" for name, value in made.items())
    else:
        made, text = {"users.conf": server_configuration()}, server_configuration()
    if as_json:
        show(made)
    else:
        sys.stdout.write(text)


@customers.command("show")
def show_customer(
    whom: Annotated[str, typer.Argument(help="A mail, a phone (+…), an external id, an ext_id or a sid.")],
    config: Annotated[Path, typer.Option(envvar="TAJO_CONFIG", help="The connector file.")] = CONFIG,
    data_dir: Annotated[
        Path, typer.Option(envvar="TAJO_DATA_DIR", help="Where the mapper keeps its book.")
    ] = Path(".tajo/data"),
    *,
    as_json: AsJson = False,
) -> None:
    """Explain a customer: identifiers, interactions, each attribute with what made it, and what Brevo was told."""
    with reading(as_json=as_json):
        told = load(config)
    try:
        found = customer.find(data_dir / "mapper/book.sqlite", told, whom)
    except customer.NobodyError as error:
        raise failure(str(error), code=FAILED, as_json=as_json) from error
    if as_json:
        show(found)
    else:
        customer.show(found, out)


@mapping.command()
def check(file: ConfigFile = CONFIG, *, as_json: AsJson = False) -> None:
    """Say whether the file can be used; every mistake with its line and column."""
    try:
        config = load(file)
    except ConfigError as error:
        if as_json:
            show({"file": str(file), "good": False, "problems": error.problems})
        for problem in () if as_json else error.problems:
            err.print(
                f"{file}:{problem.line}:{problem.column}: {problem.what}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        raise typer.Exit(FAILED) from error
    if as_json:
        show(_mapped(file, config))
        return
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
    out.print(f"{file} is good; mapping {config.hash}", highlight=False, soft_wrap=True)


@mapping.command()
def schema(*, as_json: AsJson = False) -> None:  # noqa: ARG001 - it is JSON either way, and takes what all others take
    """Print the JSON Schema of the file, for editors."""
    show(schema_of_file())


@quarantine.command()
def ls(
    nats_url: NatsUrl = NATS_URL,
    last: Annotated[int, typer.Option(help="Show so many, the latest.")] = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what is there: when, where, how large, and the sids it names.  Nothing else of it is shown."""
    with reaching(nats_url, as_json=as_json):
        requests = until_done(refused.listed(nats_url))
    shown = [refused.line(one) for one in (requests[-last:] if last > 0 else ())]
    if as_json:
        show({"total": len(requests), "requests": shown})
        return
    table = Table("received", "route", "method", "bytes", Column("sids", overflow="fold"))
    for one in shown:
        table.add_row(one.received, one.route, one.method, str(one.bytes), " ".join(one.sids))
    out.print(table)
    out.print(f"{len(requests)} in quarantine")


@quarantine.command()
def recheck(*, as_json: AsJson = False) -> None:
    """Check each signature again, with the settings as they are now; take what is right into the log.

    Reads the settings of ingest: TWILIO_AUTH_TOKEN, TAJO_PUBLIC_URL, TAJO_CONFIG, TAJO_NATS_URL.
    """
    with reading(as_json=as_json):
        settings = load_settings(IngestSettings, environment(os.environ))
        judge = settings.judge(load(settings.config))
    with reaching(settings.nats_url, as_json=as_json):
        done = until_done(refused.recheck(settings.nats_url, judge))
    if as_json:
        show(done)
        return
    out.print(f"{done.recovered} of {done.seen} are rightly signed, and in the log now")
    if done.recovered < done.seen:
        out.print(
            f"{done.seen - done.recovered} stay: no token of TWILIO_AUTH_TOKEN signed them for {judge.public_url}",
            soft_wrap=True,
        )


def _mapped(file: Path, config: Config) -> dict[str, object]:
    """What a good file maps."""
    return {
        "file": str(file),
        "good": True,
        "mapping": config.hash,
        "attributes": [
            {"twilio": source, "brevo": field.attribute, "type": field.type}
            for source, field in config.fields.items()
        ],
        "events": [{"twilio": type_, "brevo": rule.name} for type_, rule in config.rules.items()],
        "problems": [],
    }


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
    set_up(
        "tajo", level="warning"
    )  # what the modules of the services log must not stand among what is printed
    app()
