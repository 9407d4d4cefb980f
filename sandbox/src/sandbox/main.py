"""tajo-sandbox: a local Brevo, a day in a contact centre, and the demo that brings them together.

Exit codes: 0 Brevo holds exactly what was expected, 1 it does not, 2 wrong usage, 78 the settings cannot be used.
"""

import asyncio
import itertools
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sandbox import app as network
from sandbox import report, settings
from sandbox.brevo import BrevoSandbox
from sandbox.day import webhooks
from sandbox.demo import DemoError, Stack, running, stored, tail
from sandbox.expected import CONTACTS
from sandbox.limits import Limits
from sandbox.play import NotEqualError, NotTakenError, Target, play, wait_until_equal
from sandbox.rest import TwilioSandbox
from sandbox.verify import Sent
from shared.settings import SettingsError, load

ARRIVE_S = 60.0  # until Brevo has everything; its own limit lets the day through in a few seconds

S = TypeVar("S", bound=msgspec.Struct)

app = typer.Typer(no_args_is_help=True, help="A local Brevo, and a day in a contact centre.")
out = report.console()


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address; TAJO_SANDBOX_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; TAJO_SANDBOX_PORT.")] = None,
) -> None:
    """Serve a local Brevo at /v3, with faults on request at /_sandbox/faults, and a local Twilio at /twilio."""
    told = _settings(settings.Serve)
    where = (host or told.host, told.port if port is None else port)
    out.print(
        f"Brevo: http://{where[0]}:{where[1]}/v3   its state: /_sandbox/state   faults: /_sandbox/faults"
    )
    out.print(f"Twilio: http://{where[0]}:{where[1]}/twilio/taskrouter, /flex, /conversations and /events")
    twilio = TwilioSandbox(account_sid=told.account_sid, token=told.auth_tokens.split(",")[0].strip())
    brevo = BrevoSandbox(api_key=told.api_key, limits=Limits().scaled(told.hourly_scale))
    network.serve(brevo, twilio, host=where[0], port=where[1])


@app.command("play")
def play_day(
    target: Annotated[str, typer.Option(help="Where ingest is.")] = "http://127.0.0.1:8080",
    brevo: Annotated[str, typer.Option(help="Where the local Brevo is.")] = "http://127.0.0.1:8090",
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Wait, print and compare what Brevo holds.")
    ] = False,
) -> None:
    """Send the day's webhooks, signed as Twilio signs them."""
    told = _settings(settings.Play)

    async def act() -> None:
        sent = await _send(Target(target, told.public_url or target, told.token))
        if verify:
            await _compare(brevo, sent)

    _run(act())


@app.command()
def demo(
    *, keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False
) -> None:
    """Start everything on this machine, play the day, and show what Brevo holds."""

    async def act() -> None:
        out.rule("[bold]Twilio Flex → Tajo → Brevo: a day in a contact centre")
        brevo = BrevoSandbox()
        twilio = TwilioSandbox(account_sid=f"AC{secrets.token_hex(16)}", token=secrets.token_hex(16))
        with tempfile.TemporaryDirectory(prefix="tajo-demo-") as data:
            async with network.serving(brevo, twilio) as url:
                began = time.monotonic()
                async with running(data=Path(data), url=url, brevo=brevo, twilio=twilio) as stack:
                    _done("The broker and the four services are ready", began)
                    target = Target(stack.ingest, stack.ingest, stack.environment["TWILIO_AUTH_TOKEN"])
                    try:
                        await _compare(url, await _send(target), nats_url=stack.nats)
                    except (NotEqualError, NotTakenError):
                        out.print(tail(stack.log), markup=False)
                        raise
                    if keep:
                        await _keep(stack, url)

    _run(act())


def main() -> None:
    """Entry point."""
    app()


async def _send(target: Target) -> list[Sent]:
    day, began = webhooks(), time.monotonic()
    with _progress("webhooks", len(day)) as show:
        done = itertools.count(1)
        sent = await play(day, target, on_sent=lambda: show(next(done)))
    _done(f"{len(day)} webhooks are sent, each signed as Twilio signs it", began)
    return sent


async def _compare(brevo: str, sent: Sequence[Sent], *, nats_url: str = "") -> None:
    """Wait for Brevo, and print it.  Raises NotEqualError."""
    began, wanted = time.monotonic(), sum(len(contact.events) for contact in CONTACTS)
    with _progress("events at Brevo", wanted) as show:
        state = await wait_until_equal(brevo, CONTACTS, deadline_s=ARRIVE_S, on_look=show)
    _done("Brevo has everything, and it stays so", began)
    streams = await stored(nats_url) if nats_url else {}
    for panel in report.contacts(state):
        out.print(panel)
    out.print(report.totals(state, sent, streams))
    if streams.get("DEAD"):
        raise NotEqualError(state, [f"{streams['DEAD']} dead letters"])
    out.print("[green]✓[/green] Exactly what was expected: every contact, attribute, list and event, once.")


async def _keep(stack: Stack, brevo: str) -> None:
    """Say what runs where; the token is made up for this demo, and good for nothing else."""
    out.print(
        f"""
Everything keeps running.  Ctrl-C stops it.
  webhooks   {stack.ingest}/webhooks/…
  Brevo      {brevo}/_sandbox/state
  broker     {stack.nats}
  log        {stack.log}
The same day once more, after which Brevo holds the same:
  TWILIO_AUTH_TOKEN={stack.environment["TWILIO_AUTH_TOKEN"]} \\
  {sys.argv[0]} play --target {stack.ingest} --brevo {brevo} --verify""",
        soft_wrap=True,  # a command that is to be copied stays in one piece
    )
    with suppress(asyncio.CancelledError):  # Ctrl-C is how it shall end
        await asyncio.Event().wait()


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar that goes away when it is done; nothing where there is no terminal."""
    columns = (TextColumn("  {task.description}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.update(task, completed=count)


def _done(what: str, began: float) -> None:
    out.print(f"[green]✓[/green] {what:<64}{time.monotonic() - began:6.1f} s")


def _settings(kind: type[S]) -> S:
    try:
        return load(kind, os.environ)
    except SettingsError as error:
        out.print(str(error), markup=False)
        raise typer.Exit(os.EX_CONFIG) from error


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Until it is done, or we are told to stop; then what is open is closed in order."""

    async def stoppable() -> None:
        task = asyncio.create_task(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await task

    try:
        asyncio.run(stoppable())
    except NotEqualError as error:
        for panel in report.contacts(error.state):
            out.print(panel)
        out.print(report.unequal(error.found))
        raise typer.Exit(1) from error
    except (NotTakenError, DemoError, httpx.HTTPError) as error:
        out.print(f"✗ {type(error).__name__}: {error}", markup=False)
        raise typer.Exit(1) from error
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        raise typer.Exit(130) from error
