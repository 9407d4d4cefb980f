"""`tajo quarantine`: what was refused for its signature, and taking back what was refused by mistake."""

import os
import re
from functools import partial
from typing import Annotated

import typer
from msgspec import Struct
from rich.table import Column, Table

from ingest.judge import Heard, Judge
from ingest.quarantine import Rechecked, held
from ingest.quarantine import recheck as recheck_all
from ingest.settings import Settings
from shared.connector_file import load
from shared.credentials import environment
from shared.event import rfc3339
from shared.publish import publish
from shared.settings import load as load_settings
from tajo.broker import connected, run
from tajo.output import NATS_URL, AsJson, NatsUrl, out, reaching, reading, show

app = typer.Typer(no_args_is_help=True, help="Webhooks refused for a wrong signature, kept for 24 h.")

_SIDS = re.compile(rb"\b(?:EV|WT|WR|CH|KD|CA)[0-9a-f]{32}\b")
SIDS_MAX = 2  # of one request, shown


class Line(Struct, frozen=True):
    """A request in quarantine, as far as it is shown."""

    received: str
    route: str
    method: str
    bytes: int
    sids: list[str]


@app.command()
def ls(
    nats_url: NatsUrl = NATS_URL,
    last: Annotated[int, typer.Option(help="Show so many, the latest.")] = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what is there: when, where, how large, and the sids it names.  Nothing else of it is shown."""
    with reaching(nats_url, as_json=as_json):
        requests = run(listed(nats_url))
    shown = [line(one) for one in (requests[-last:] if last > 0 else ())]
    if as_json:
        show({"total": len(requests), "requests": shown})
        return
    table = Table("received", "route", "method", "bytes", Column("sids", overflow="fold"))
    for one in shown:
        table.add_row(one.received, one.route, one.method, str(one.bytes), " ".join(one.sids))
    if shown:
        out.print(table)
    out.print(f"{len(requests)} in quarantine")


@app.command()
def recheck(*, as_json: AsJson = False) -> None:
    """Check each signature again, with the settings as they are now; take what is right into the log.

    Reads the settings of ingest: TWILIO_AUTH_TOKEN, TAJO_PUBLIC_URL, TAJO_CONFIG, TAJO_NATS_URL.
    """
    with reading(as_json=as_json):
        settings = load_settings(Settings, environment(os.environ))
        judge = settings.judge(load(settings.config))
    with reaching(settings.nats_url, as_json=as_json):
        done = run(taken_back(settings.nats_url, judge))
    if as_json:
        show(done)
        return
    out.print(f"{done.recovered} of {done.seen} are rightly signed, and in the log now")
    if done.recovered < done.seen:
        out.print(
            f"{done.seen - done.recovered} stay: no token of TWILIO_AUTH_TOKEN signed them for {judge.public_url}",
            soft_wrap=True,
        )


async def listed(url: str) -> list[Heard]:
    """What is in quarantine, oldest first.  Raises nats' errors and OSError."""
    async with connected(url) as connection:
        return [heard async for _, heard in held(connection.jetstream())]


async def taken_back(url: str, judge: Judge) -> Rechecked:
    """Take back what is rightly signed.  Raises NotPublishedError, nats' errors and OSError."""
    async with connected(url) as connection:
        return await recheck_all(connection.jetstream(), partial(publish, connection), judge)


def line(heard: Heard) -> Line:
    """What may be shown of it: the first sids say what it is about, and nothing of whom."""
    found = dict.fromkeys(match[0].decode() for match in _SIDS.finditer(heard.body or heard.query))
    return Line(
        rfc3339(heard.heard_ms),
        heard.path,
        heard.method,
        len(heard.body or heard.query),
        list(found)[:SIDS_MAX],
    )
