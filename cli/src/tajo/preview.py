"""`tajo mapping preview`: what Brevo would be told of given events.  Nothing is sent."""

import time
from pathlib import Path
from typing import Annotated

import typer
from nats.aio.client import Client
from rich.markup import escape
from rich.table import Column, Table

from ingest.sources import Request
from ingest.sources import read as read_webhook
from mapper.kin import of_customer
from mapper.preview import Preview
from mapper.preview import preview as preview_of
from mapper.step import Policy
from mapper.story import NO_ACCOUNT
from shared.cloudevent import NotACloudEventError, event_of, from_line
from shared.config import Config
from shared.connector_file import load
from shared.event import RawEvent
from shared.topology import MESSAGE_BYTES_MAX
from tajo import log_import, log_reading
from tajo.asking import asking
from tajo.log_selection import Task, selection
from tajo.output import FAILED, NATS_URL, AsJson, NatsUrl, failure, out, reading
from tajo.output import show as show_json
from tajo.progress import bar

EVENTS_MAX = 100_000  # folded at once, in memory: some 300 MB

Route = Annotated[
    str,
    typer.Option(
        help="FILE is one body as Twilio posts it to this route of ours: taskrouter, event-streams, …"
    ),
]


def preview(
    file: Annotated[Path, typer.Argument(envvar="TAJO_CONFIG", help="The connector file.")] = Path(
        "config/tajo.yaml"
    ),
    nats_url: NatsUrl = NATS_URL,
    *,
    event: Annotated[
        Path | None, typer.Option(help="A file of events as `tajo log export` writes them, or see --route.")
    ] = None,
    route: Route = "",
    last: Annotated[
        int,
        typer.Option(
            min=0, help="So many of the log, the latest, with all that concerns the same customers."
        ),
    ] = 0,
    task: Task = None,
    as_json: AsJson = False,
) -> None:
    """Show what Brevo would be told of events, and what not and why.  Nothing is sent, nothing is stored."""
    if (event is None) == (last == 0 and not task):
        raise typer.BadParameter("say of which events: --event FILE, or --last N or --task SID of the log")
    with reading(as_json=as_json):
        config = load(file)
    policy = Policy.of(config)
    if event is None:
        events = asking(
            nats_url,
            lambda broker: _of_log(broker, policy, last, task or [], as_json=as_json),
            as_json=as_json,
        )
    else:
        events = _of_file(event, route, config, as_json=as_json)
    found = preview_of(events, policy)
    if as_json:
        show_json(found)
    else:
        _print(found)


def _of_file(file: Path, route: str, config: Config, *, as_json: bool) -> list[RawEvent]:
    try:
        if route:
            with file.open("rb") as body:
                return _of_body(body.read(MESSAGE_BYTES_MAX + 1), route, config)
        with file.open("rb") as source:
            return [_event(number, line) for number, line in log_import.lines(source)]
    except OSError as error:
        why = f"{file} cannot be read: {error.strerror}"
        raise failure(why, code=FAILED, as_json=as_json) from error
    except NotACloudEventError as error:
        remedy = "" if route else "a body as Twilio posts it needs --route, such as --route taskrouter"
        raise failure(f"{file}:{error}", remedy, code=FAILED, as_json=as_json) from error


def _event(number: int, line: bytes | None) -> RawEvent:
    if number > EVENTS_MAX:
        raise NotACloudEventError(f"{number}: more than {EVENTS_MAX:,} events")
    try:
        if line is None:
            raise NotACloudEventError("too long")
        return event_of(from_line(line, account_sid=NO_ACCOUNT))
    except ValueError as error:
        raise NotACloudEventError(f"{number}: {error}") from error


def _of_body(body: bytes, route: str, config: Config) -> list[RawEvent]:
    """What ingest would make of it."""
    if len(body) > MESSAGE_BYTES_MAX:
        raise NotACloudEventError(f" larger than {MESSAGE_BYTES_MAX // 1024**2} MiB")
    request = Request(
        path=f"/webhooks/{route.removeprefix('/').removeprefix('webhooks/')}",
        body=body,
        heard_ms=round(time.time() * 1000),
        account_sid=config.flex.account_sid or NO_ACCOUNT,
        keep_bodies=config.flex.message_bodies,
    )
    try:
        read = read_webhook(request)
    except KeyError as error:
        raise typer.BadParameter(f"no route is called {route}: docs/configuration.md lists them") from error
    if read.unreadable:
        raise NotACloudEventError(f" it would become a dead letter: {read.unreadable[0].why}")
    return list(read.events)


async def _of_log(
    broker: Client, policy: Policy, last: int, tasks: list[str], *, as_json: bool
) -> list[RawEvent]:
    """The latest, or those of tasks, with all that can change what is told of them."""
    with bar("reading the log") as tell:
        kin = await log_reading.kin(broker, policy.reading, of_customer, tell)
    wanted = kin.of(names=tasks) if tasks else set[int]()
    if last:
        latest = await log_reading.latest(broker, selection(task=tasks), last, headers_only=True)
        wanted = {one.sequence for one in latest}
    sequences = kin.of(wanted)
    if not sequences:
        raise failure(
            "no such event in the log", "`tajo log ls` shows what is there", code=FAILED, as_json=as_json
        )
    if len(sequences) > EVENTS_MAX:
        raise failure(
            f"{len(sequences):,} events concern the same customers, more than the {EVENTS_MAX:,} that are taken here",
            "take fewer, or plan a replay instead: `tajo replay --plan`", code=FAILED, as_json=as_json,
        )  # fmt: skip
    return [event_of(one.message) async for one in log_reading.at(broker, sequences)]


def _print(found: Preview) -> None:
    for contact in found.contacts:
        lists = f"; lists {', '.join(map(str, contact.list_ids))}" if contact.list_ids else ""
        out.print(
            f"[bold]{contact.ext_id}[/bold] {escape(contact.email or 'no email')}{lists}", highlight=False
        )
        table = Table(*(Column(name, overflow="fold") for name in ("Attribute", "Value", "Source")))
        for fact in contact.attributes:
            table.add_row(fact.attribute, escape(str(fact.value)), fact.source)
        out.print(table)
    if found.events:
        table = Table(
            *(Column(name, overflow="fold") for name in ("Event", "Time", "Contact", "Properties")),
            title="Events", title_justify="left",
        )  # fmt: skip
        for one in found.events:
            properties = "\n".join(f"{name} {value}" for name, value in one.properties.items())
            name = f"{one.name}\nheld for 10 s" if one.held else one.name
            table.add_row(name, one.time, one.contact, escape(properties))
        out.print(table)
    _list("Waiting", [f"{one.id}: {one.why}" for one in found.waiting])
    _list("Not told", [f"{one.id}: {one.why}" for one in found.dropped])
    _list(
        "Raw events of which no event is made",
        [f"{one.count} × {one.type}: {one.why}" for one in found.ignored],  # noqa: RUF001
    )
    out.print(
        f"{found.heard:,} raw events, {len(found.contacts):,} contacts, {len(found.events):,} events; nothing was sent",
        highlight=False,
    )


def _list(title: str, lines: list[str]) -> None:
    if lines:
        out.print(f"[bold]{title}[/bold]")
        for line in lines:
            out.print(f"  {escape(line)}", soft_wrap=True, highlight=False)
