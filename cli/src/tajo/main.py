"""tajo: the command line.  Here is what runs it all; the other commands stand in later.py's modules.  How each ends: output.py."""

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import nats.errors
import typer

from shared.bootstrap import Replicas
from shared.bootstrap import bootstrap as make_streams
from shared.log import set_up
from shared.login import login_as, new_password
from shared.permissions import USERS, server_configuration
from shared.settings import load as load_settings
from shared.topology import BUCKETS, CONSUMERS, OBJECT_STORES, STREAMS
from tajo.broker import run as until_done
from tajo.later import Later
from tajo.output import (
    CODES,
    NATS_URL,
    UNAVAILABLE,
    UNUSABLE,
    AsJson,
    NatsUrl,
    err,
    failure,
    out,
    reaching,
    show,
)
from tajo.supervise import GivenUpError
from tajo.up import SERVICES, CannotStartError, module
from tajo.up import up as run_everything

app = typer.Typer(
    cls=Later,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,  # they hold secrets
    help="Twilio Flex → Brevo, event-sourced.",
    epilog=CODES,
)


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


def main() -> None:
    """Entry point."""
    set_up(
        "tajo", level="warning"
    )  # what the modules of the services log must not stand among what is printed
    app()
