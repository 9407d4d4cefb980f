"""`tajo up` and `tajo run`.  What only they need is imported, and the rest when it is: services wait for it."""

import asyncio
import importlib
from pathlib import Path
from typing import Annotated

import typer

from tajo.supervise import GivenUpError
from tajo.up import SERVICES, CannotStartError, NoStreamsError, also_wrong, module
from tajo.up import up as run_everything


def up(
    nats_config: Annotated[Path, typer.Option(help="Configuration of the embedded broker.")] = Path(
        "deploy/nats/nats.conf"
    ),
) -> None:
    """Run everything on this machine: broker, streams and services, until Ctrl-C."""
    try:
        asyncio.run(run_everything(config=nats_config, say=_say))
    except (CannotStartError, GivenUpError, NoStreamsError) as error:
        from tajo.output import UNAVAILABLE, UNUSABLE, failure

        code = UNAVAILABLE if isinstance(error, NoStreamsError) else UNUSABLE
        more = also_wrong(error.name) if isinstance(error, GivenUpError) else []
        raise failure(f"tajo cannot run: {error}", "\n".join(more), code=code, as_json=False) from error


def _say(line: str) -> None:
    from tajo.output import err

    err.print(f"[bold]tajo[/bold] {line}")


def run(service: Annotated[str, typer.Argument(help=", ".join(SERVICES))]) -> None:
    """Run one service in the foreground."""
    if service not in SERVICES:
        raise typer.BadParameter(f"no service is called {service}; there are {', '.join(SERVICES)}")
    importlib.import_module(f"{module(service)}.main").main()
