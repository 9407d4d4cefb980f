"""`tajo connectors list` and `remove`: what is stored, where each value comes from, and forgetting it."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from shared.credentials import NAMES, Installed, is_set, layered, store_of
from shared.settings import SettingsError
from tajo import event_streams
from tajo.installation import CONNECTOR, CONNECTORS, Installation, calling_twilio

Origin = Literal["environment", "store", "not set"]


class Listed(Struct, frozen=True):
    """One connector: no value but the account sid, which is none of the secrets."""

    connector: str
    installed: bool
    since: str
    account_sid: str
    values: dict[str, Origin]  # environment variable → where its value comes from


def listed(environ: Mapping[str, str]) -> list[Listed]:
    """All connectors there are.  Raises SettingsError."""
    stored = store_of(environ).read()
    return [_listed(name, environ, stored.get(name)) for name in CONNECTORS]


def _listed(name: str, environ: Mapping[str, str], stored: Installed | None) -> Listed:
    known = layered(environ, *([stored] if stored else []))
    return Listed(
        connector=name,
        installed=stored is not None,
        since=stored.since if stored else "",
        account_sid=known.get("TWILIO_ACCOUNT_SID", ""),
        values={variable: _origin(variable, environ, known) for variable in NAMES},
    )


def _origin(name: str, environ: Mapping[str, str], known: Mapping[str, str]) -> Origin:
    return "environment" if is_set(name, environ) else "store" if known.get(name) else "not set"


def show(all_of_them: list[Listed], out: Console) -> None:
    """Print them."""
    for one in all_of_them:
        since = f"since {one.since}" if one.installed else "nothing stored"
        out.print(
            f"[bold]{one.connector}[/bold]  {one.account_sid or 'no account'}  {since}", highlight=False
        )
        table = Table("variable", "value", "from", box=None, padding=(0, 2))
        for name, origin in one.values.items():
            table.add_row(name, "" if origin == "not set" else "••••••••", origin)
        out.print(table)


class Removed(Struct, frozen=True):
    """What is gone."""

    connector: str
    removed: bool  # whether anything was stored
    deleted: tuple[str, ...]  # sids at Twilio


async def remove(installation: Installation, *, streams: bool) -> Removed:
    """Forget the credentials; with `streams` delete our subscription and sink first, while we still may.

    Raises SettingsError and TwilioError; nothing is forgotten then.
    """
    deleted: tuple[str, ...] = ()
    if streams:
        if not installation.public_url:
            raise SettingsError(
                "TAJO_PUBLIC_URL is not set: by it our sink is known; set it, or --public-url"
            )
        if not installation.account_sid or not installation.credentials:
            raise SettingsError(
                "TWILIO_ACCOUNT_SID or TWILIO_AUTH_TOKEN is not set: nothing can be deleted at Twilio"
            )
        async with calling_twilio(installation, installation.credentials[0]) as twilio:
            deleted = await event_streams.unregister(
                twilio, f"{installation.public_url}{event_streams.ROUTE}"
            )
    return Removed(CONNECTOR, installation.store.remove(CONNECTOR), deleted)


def show_removed(removed: Removed, out: Console) -> None:
    """Print it, with what stays."""
    what = "its credentials are deleted" if removed.removed else "nothing was stored"
    out.print(f"{removed.connector}: {what}", highlight=False)
    if removed.deleted:
        out.print(f"deleted at Twilio: {', '.join(removed.deleted)}", highlight=False, soft_wrap=True)
    out.print(
        "What stays: the log, the book and everything at Brevo; URLs pasted in Twilio's Console; what the environment sets. "
        "Services that run keep what they read when they started.",
        highlight=False,
    )  # fmt: skip
