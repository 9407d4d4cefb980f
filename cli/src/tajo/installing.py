"""`tajo connectors install|test|list|remove`: the commands, thin; what each does stands in a module of its own."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from poller.twilio import TwilioError
from shared.credentials import NAMES
from shared.verdict import Retry
from tajo import check, installed
from tajo import install as work
from tajo.broker import run
from tajo.findings import Finding
from tajo.install import Asked, NotInstalledError
from tajo.installation import CONNECTORS, Installation, read
from tajo.output import FAILED, UNAVAILABLE, AsJson, failure, out, reading
from tajo.output import show as show_json

T = TypeVar("T")


def _known(name: str) -> str:
    if name not in CONNECTORS:
        raise typer.BadParameter(f"no connector is called {name}; there is {', '.join(CONNECTORS)}")
    return name


Name = Annotated[str, typer.Argument(callback=_known, metavar="twilio-flex", help="The connector.")]
PublicUrl = Annotated[
    str | None, typer.Option(help="What stands before /webhooks in the URLs Twilio calls; else TAJO_PUBLIC_URL.")
]  # fmt: skip
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

MARKS = {
    "ok": "[green]✓[/green]",
    "failed": "[red]✗[/red]",
    "warning": "[yellow]![/yellow]",
    "skipped": "[dim]-[/dim]",
}


def install(
    name: Name,
    *,
    account_sid: Annotated[
        str | None, typer.Option(help="AC…; else TWILIO_ACCOUNT_SID, else asked for.")
    ] = None,
    auth_token: Annotated[
        str | None,
        typer.Option(help="`-` reads it from standard input; else TWILIO_AUTH_TOKEN, else asked for."),
    ] = None,
    api_key_sid: Annotated[str | None, typer.Option(help="SK…, to read with instead of the token.")] = None,
    api_key_secret: Annotated[
        str | None, typer.Option(help="Its secret; `-` reads it from standard input.")
    ] = None,
    flex_flow_sid: Annotated[str | None, typer.Option(help="FO…, of legacy Flex only.")] = None,
    brevo_api_key: Annotated[
        str | None, typer.Option(help="`-` reads it from standard input; else BREVO_API_KEY, else asked for.")
    ] = None,
    tajo_api_key: Annotated[
        str | None, typer.Option(help="What X-Tajo-Key shall hold; `-` reads it from standard input.")
    ] = None,
    public_url: PublicUrl = None,
    event_streams: Annotated[
        bool, typer.Option("--event-streams", help="Make a sink and a subscription at Twilio.")
    ] = False,
    set_event_callback: Annotated[
        bool, typer.Option("--set-event-callback", help="Set the workspace's event callback to ours.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Also where another's callback stands.")] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Store without asking Twilio and Brevo.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Look whether the credentials work, and store them encrypted.  Doing it again changes nothing.

    Whoever uses this machine sees a command line (ps): give secrets by prompt, by `-` or in the environment.
    """
    options = (
        account_sid,
        auth_token,
        api_key_sid,
        api_key_secret,
        flex_flow_sid,
        brevo_api_key,
        tajo_api_key,
    )
    given = {variable: _value(value) for variable, value in zip(NAMES, options, strict=True) if value}
    if public_url:
        given["TAJO_PUBLIC_URL"] = public_url
    with reading(as_json=as_json):
        installation = _ask_for_the_rest(name, given)
    if event_streams and not yes:
        where = installation.public_url or "TAJO_PUBLIC_URL, which is not set"
        typer.confirm(f"Make a webhook sink to {where} and a subscription in {installation.account_sid}?", abort=True, err=True)  # fmt: skip
    asked = Asked(not no_check, event_streams, set_event_callback, force)
    report = _run(work.install(installation, asked), as_json=as_json)
    _print(report, None if as_json else work.show)
    if report.event_callback and report.event_callback.state == "kept":
        raise typer.Exit(FAILED)


def look(name: Name, *, as_json: AsJson = False) -> None:
    """Ask Twilio, Brevo, the broker and the services, and say of each whether it works; ends with 1 if one does not."""
    with reading(as_json=as_json):
        installation = read(name, os.environ, {})
    found = _run(_told(check.look_at(installation), quiet=as_json), as_json=as_json)
    good = all(one.status != "failed" for one in found)
    if as_json:
        _print({"connector": name, "ok": good, "findings": found}, None)
    if not good:
        raise typer.Exit(FAILED)


def show(*, as_json: AsJson = False) -> None:
    """Say what is installed and where each value comes from; no secret is shown."""
    with reading(as_json=as_json):
        found = installed.listed(os.environ)
    _print(found, None if as_json else installed.show)


def remove(
    name: Name,
    public_url: PublicUrl = None,
    *,
    event_streams: Annotated[
        bool, typer.Option("--event-streams", help="Delete our subscription and sink at Twilio, too.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete the stored credentials.  The log, and what Brevo was told, stay."""
    with reading(as_json=as_json):
        installation = read(name, os.environ, {"TAJO_PUBLIC_URL": public_url} if public_url else {})
    if not yes:
        too = " and our Event Streams subscription and sink" if event_streams else ""
        typer.confirm(f"Delete the stored credentials of {name}{too}?", abort=True, err=True)
    removed = _run(installed.remove(installation, streams=event_streams), as_json=as_json)
    _print(removed, None if as_json else installed.show_removed)


# -- what they share ----------------------------------------------------------------------------------------


def _value(option: str) -> str:
    """An option's value; `-` stands for the next line of standard input, or a hidden prompt."""
    if option != "-":
        return option.strip()
    if sys.stdin.isatty():
        return str(typer.prompt("value", hide_input=True, err=True)).strip()
    if line := sys.stdin.readline().strip():
        return line
    raise typer.BadParameter("an option is - and standard input has no line for it")


def _ask_for_the_rest(name: str, given: dict[str, str]) -> Installation:
    """The installation; what is needed and not known is asked for, where somebody is there to answer."""
    installation = read(name, os.environ, given)
    if not sys.stdin.isatty():
        return _with_account(name, given, installation)
    for variable, what, needed in (
        ("TWILIO_ACCOUNT_SID", "Twilio account sid (AC…)", True),
        ("TWILIO_AUTH_TOKEN", "Twilio auth token", True),
        ("BREVO_API_KEY", "Brevo API key (empty: later)", False),
    ):
        if variable not in installation.values:
            hidden = variable != "TWILIO_ACCOUNT_SID"
            default = None if needed else ""
            given[variable] = str(
                typer.prompt(what, hide_input=hidden, default=default, show_default=False, err=True)
            ).strip()
    return _with_account(name, given, read(name, os.environ, given))


def _with_account(name: str, given: dict[str, str], installation: Installation) -> Installation:
    """The connector file may name the account; it is stored all the same, for the secrets are that account's."""
    if "TWILIO_ACCOUNT_SID" in installation.values or not installation.account_sid:
        return installation
    return read(name, os.environ, {**given, "TWILIO_ACCOUNT_SID": installation.account_sid})


async def _told(findings: AsyncIterator[Finding], *, quiet: bool) -> list[Finding]:
    """All of them, each printed when it is known."""
    found = []
    async for one in findings:
        found.append(one)
        if not quiet:
            out.print(f"{MARKS[one.status]} ", end="")
            out.print(one.said, highlight=False, markup=False, soft_wrap=True)
            if one.remedy:
                out.print(f"    {one.remedy}", highlight=False, markup=False, soft_wrap=True)
    return found


def _run(work: Coroutine[Any, Any, T], *, as_json: bool) -> T:
    """Do it; what cannot be done is said, and is the exit code."""
    try:
        with reading(as_json=as_json):
            return run(work)
    except NotInstalledError as error:
        raise failure(f"✗ not installed: {error}", code=FAILED, as_json=as_json) from error
    except TwilioError as error:
        code = UNAVAILABLE if isinstance(error.verdict, Retry) else FAILED
        raise failure(f"✗ Twilio: {error}", "run it again", code=code, as_json=as_json) from error


def _print(value: T, show: Callable[[T, Console], None] | None) -> None:
    """Show it, or print it as JSON."""
    if show:
        show(value, out)
    else:
        show_json(value)
