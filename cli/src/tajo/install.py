"""`tajo connectors install`: look whether the credentials work, store them, and say what is left to do.

The order: look, store, then change anything at Twilio.  Whatever fails, running it again goes on where it stopped.
"""

import time

from msgspec import Struct
from rich.console import Console

from brevo_sink.preflight import why_not
from poller.account import Account, discover
from poller.twilio import TwilioError
from shared.event import rfc3339
from shared.settings import SettingsError
from tajo import event_callback, event_streams
from tajo.event_callback import Callback
from tajo.event_streams import Registered
from tajo.installation import CONNECTOR, Installation, calling_brevo, calling_twilio, mistakes

NOTE = "set TAJO_PUBLIC_URL to the same URL for ingest: what Twilio signs covers it"


class NotInstalledError(Exception):
    """What stands in the way, and what to do.  Nothing was stored."""


class Asked(Struct, frozen=True):
    """What to do besides storing."""

    check: bool = True
    event_streams: bool = False
    event_callback: bool = False
    force: bool = False


class Report(Struct, frozen=True):
    """What was found and done."""

    connector: str
    account_sid: str
    workspace_sid: str  # empty where nobody looked; so with the next
    chat_service_sid: str
    changed: bool  # whether anything was stored that was not
    stored: tuple[str, ...]  # names, never values
    paste: dict[str, str]  # where in the Console → the URL that belongs there
    event_streams: Registered | None = None
    event_callback: Callback | None = None
    note: str = ""


async def install(installation: Installation, asked: Asked) -> Report:
    """Install it.  Raises SettingsError, NotInstalledError and, once it is stored, TwilioError."""
    values = installation.values
    if problems := mistakes(values):
        raise SettingsError("\n".join(problems))
    if (asked.event_streams or asked.event_callback) and not installation.public_url:
        raise SettingsError(
            "TAJO_PUBLIC_URL is not an https URL that Twilio can call: set it, or --public-url"
        )
    account = Account(installation.account_sid, "", "")
    if asked.check or asked.event_callback:
        account = await _looked(installation)
    if asked.check and "BREVO_API_KEY" in values:
        await _look_at_brevo(installation)
    changed = installation.store.put(CONNECTOR, values, now=rfc3339(time.time_ns() // 1_000_000))
    registered = callback = None
    async with calling_twilio(installation, installation.credentials[0]) as twilio:
        if asked.event_streams:
            destination = f"{installation.public_url}{event_streams.ROUTE}"
            registered = await event_streams.register(
                twilio, destination, event_streams.wanted(installation.config)
            )
        if asked.event_callback:
            ours = event_callback.url_of(installation.public_url)
            callback = await event_callback.set_callback(
                twilio, account.workspace_sid, ours, force=asked.force
            )
    return Report(
        connector=CONNECTOR,
        account_sid=account.account_sid,
        workspace_sid=account.workspace_sid,
        chat_service_sid=account.chat_service_sid,
        changed=changed,
        stored=tuple(values),
        paste=paste(installation.public_url or "https://<your host>", registered, callback),
        event_streams=registered,
        event_callback=callback,
        note=NOTE if installation.moved else "",
    )


def paste(public_url: str, streams: Registered | None, callback: Callback | None) -> dict[str, str]:
    """Where in Twilio's Console each of our URLs belongs, but for what is done already.  Pure."""
    urls = {
        "Conversations > your service > Webhooks > Post-event URL": f"{public_url}/webhooks/conversations",
        "Studio > HTTP Request (header X-Tajo-Key)": f"{public_url}/webhooks/survey",
    }
    if streams or (callback and callback.state != "kept"):
        return urls
    return {
        "TaskRouter > your workspace > Settings > Event callback URL": event_callback.url_of(public_url),
        "or Event Streams > Create > Webhook sink (or --event-streams)": f"{public_url}{event_streams.ROUTE}",
        **urls,
    }


async def _looked(installation: Installation) -> Account:
    """The account, as each of the credentials finds it.  Raises NotInstalledError."""
    account = None
    for number, one in enumerate(installation.credentials):
        async with calling_twilio(installation, one) as twilio:
            try:
                found = await discover(twilio, installation.config.flex.poller)
            except TwilioError as error:
                named = "the API key" if one.user.startswith("SK") else "the auth token"
                raise NotInstalledError(f"Twilio, with {named}: {error}") from error
        account = account if number else found
    assert account is not None  # noqa: S101 - without an auth token nobody comes here
    return account


async def _look_at_brevo(installation: Installation) -> None:
    async with calling_brevo(installation) as brevo:
        await brevo.turn("other")
        answer = await brevo.call("GET", "/account")
    if stop := why_not(answer):
        raise NotInstalledError(f"{stop.why}; {stop.remedy}")


def show(report: Report, out: Console) -> None:
    """Print it, with what to do next."""
    stored = "stored" if report.changed else "nothing changed; stored"
    out.print(
        f"[green]✓[/green] {report.connector} is installed: account {report.account_sid}", highlight=False
    )
    if report.workspace_sid:
        chat = report.chat_service_sid or "none: this account has no Flex Conversations"
        out.print(f"  TaskRouter workspace {report.workspace_sid}", highlight=False)
        out.print(f"  chat service {chat}", highlight=False)
    out.print(f"  {stored}, encrypted: {', '.join(report.stored)}", highlight=False, soft_wrap=True)
    if report.event_streams:
        _show_streams(report.event_streams, out)
    if report.event_callback:
        _show_callback(report.event_callback, out)
    out.print("\nNext:")
    if "BREVO_API_KEY" not in report.stored:
        out.print(
            "  give it Brevo's key: tajo connectors install twilio-flex --brevo-api-key -", highlight=False
        )
    if report.note:
        out.print(f"  {report.note}", highlight=False, soft_wrap=True)
    out.print("  paste in Twilio's Console, as far as you use it:", highlight=False)
    for where, url in report.paste.items():
        out.print(f"    {where}\n      {url}", highlight=False, soft_wrap=True, markup=False)
    out.print("  restart the services: they read what is stored when they start", highlight=False)
    out.print("  tajo connectors test twilio-flex", highlight=False)


def _show_streams(registered: Registered, out: Console) -> None:
    made = f"made {' and '.join(registered.made)}" if registered.made else "sink and subscription were there"
    out.print(
        f"  Event Streams: {made}, {len(registered.added)} types added"
        f" ({registered.sink_sid}, {registered.subscription_sid})",
        highlight=False,
        soft_wrap=True,
    )
    if registered.unknown:
        out.print(
            f"  [yellow]![/yellow] not to be had in this account: {', '.join(registered.unknown)}",
            soft_wrap=True,
        )


def _show_callback(callback: Callback, out: Console) -> None:
    said = {
        "there": "was ours already",
        "set": f"is ours now{f', instead of {callback.instead_of}' if callback.instead_of else ''}",
        "kept": f"is another's and stays: {callback.instead_of}; --force overwrites it",
    }[callback.state]
    out.print(f"  event callback of the workspace: {said}", highlight=False, soft_wrap=True, markup=False)
    if callback.events_filter and callback.state != "kept":
        out.print(
            f"  [yellow]![/yellow] its events filter lets through only {callback.events_filter}: empty it in the Console",
            soft_wrap=True,
        )
