"""`tajo trace`: the path of one task through the streams, without anything else being there."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from rich.markup import escape

from shared import receipt
from shared.event import shard
from shared.message import MSG_ID
from shared.topology import BREVO, DEAD, RECEIPTS, TWILIO, Stream
from tajo import path
from tajo.broker import connected, run
from tajo.output import FAILED, NATS_URL, AsJson, NatsUrl, failure, out, reaching, show
from tajo.path import Found, Stored

FETCH = 500  # messages at once
FETCH_S = 5.0  # for them to come
READ_MAX = 500_000  # messages of one stream: some 20 s
HOUR_MS = 3600 * 1000
AROUND_MS = 60_000  # after a task's last event others that mention it may be stored


class NothingError(Exception):
    """The streams know nothing of it."""


class _Reader:
    """Reads parts of streams; `complete` until a part was too long."""

    def __init__(self, connection: Client) -> None:
        self._jetstream = connection.jetstream(timeout=FETCH_S)
        self.complete = True

    async def read(
        self,
        stream: Stream,
        wanted: Callable[[Stored], bool],
        *,
        since_ms: int = 0,
        until_ms: int = 2**62,
        subjects: Sequence[str] = (),
        headers_only: bool = False,
    ) -> list[Stored]:
        """What is wanted of what was stored between these times, in order."""
        since = datetime.fromtimestamp(since_ms / 1000, UTC)
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_TIME,
            opt_start_time=since,  # nats-py makes RFC 3339 of it
            ack_policy=AckPolicy.NONE,
            filter_subjects=list(subjects) or None,
            headers_only=headers_only,
            inactive_threshold=30.0,
            mem_storage=True,
        )
        reader = await self._jetstream.pull_subscribe("", stream=stream.name, config=config)
        found: list[Stored] = []
        try:
            left, seen = (await reader.consumer_info()).num_pending or 0, 0
            while left:
                for message in await reader.fetch(FETCH, timeout=FETCH_S):
                    metadata = message.metadata
                    at_ms = round(metadata.timestamp.timestamp() * 1000)
                    one = Stored(
                        stream.name,
                        metadata.sequence.stream,
                        at_ms,
                        dict(message.headers or {}),
                        message.data,
                    )
                    left, seen = metadata.num_pending, seen + 1
                    if at_ms > until_ms:
                        return found
                    if wanted(one):
                        found.append(one)
                if seen >= READ_MAX:
                    self.complete = False
                    return found
        finally:
            await reader.unsubscribe()
        return found


async def find(url: str, id_: str, *, hours: float, jaeger_url: str = "") -> Found:
    """Everything the streams know of a task, conversation, event or command.

    Raises NothingError, nats' errors and OSError.
    """
    async with connected(url) as connection:
        reader = _Reader(connection)
        raws = await _raws(reader, id_)
        alone = [] if raws else await reader.read(BREVO, lambda one: one.headers.get(MSG_ID) == id_)
        if not (raws or alone):
            raise NothingError(f"the streams know nothing of {id_}")
        heard = {one.trace_id for one in (*raws, *alone)} - {""}
        if not raws:
            raws = await reader.read(TWILIO, lambda one: one.trace_id in heard, headers_only=True)
        first = min(one.at_ms for one in (*raws, *alone))
        last = max(one.at_ms for one in (*raws, *alone)) + round(hours * HOUR_MS)
        whole = "/" not in id_
        said = await reader.read(
            BREVO,
            lambda one: path.is_about(one, id_, heard) if whole else one.headers.get(MSG_ID) == id_,
            since_ms=first,
            until_ms=last,
        )
        ids = {one.headers.get(MSG_ID, "") for one in said}
        traces = {one.trace_id for one in said} - {""}
        if not whole and traces:
            raws = [one for one in raws if one.trace_id in traces] or raws
        if whole and (others := traces - heard):  # caused by what names it otherwise: a survey of its call
            causes = await reader.read(
                TWILIO,
                lambda one: one.trace_id in others,
                since_ms=first - AROUND_MS,
                until_ms=max(one.at_ms for one in said),
                headers_only=True,
            )
            raws = sorted([*raws, *causes], key=lambda one: one.sequence)
        receipts = await reader.read(
            RECEIPTS,
            lambda one: bool(path.closes(receipt.from_body(one.body), id_, ids)),
            since_ms=first,
            until_ms=last,
        )
        letters = await reader.read(
            DEAD, lambda one: one.trace_id in heard, headers_only=True, since_ms=first, until_ms=last
        )
        return path.found(
            id_,
            raws=raws,
            said=said,
            receipts=receipts,
            letters=letters,
            jaeger_url=jaeger_url,
            complete=reader.complete,
        )


async def _raws(reader: _Reader, id_: str) -> list[Stored]:
    """Raw events that tell of it: those of its own shard say when that was, and then all that mention it."""
    entity = path.entity_of(id_)
    own = await reader.read(
        TWILIO,
        lambda one: one.headers.get("ce-subject") == entity,
        subjects=[f"twilio.*.{shard(entity)}.>"],
        headers_only=True,
    )
    if not own:  # an event by its own id may be in any shard
        return await reader.read(TWILIO, lambda one: one.headers.get("ce-id") == entity, headers_only=True)
    return await reader.read(
        TWILIO,
        lambda one: path.mentions(one, id_),
        since_ms=own[0].at_ms - AROUND_MS,
        until_ms=own[-1].at_ms + AROUND_MS,
    )


def trace(
    what: Annotated[str, typer.Argument(help="A sid (WT…, CH…, EV…) or the id of a command.")],
    nats_url: NatsUrl = NATS_URL,
    jaeger_url: Annotated[
        str, typer.Option(envvar="TAJO_JAEGER_URL", help="Jaeger's web page, to point to.")
    ] = "",
    hours: Annotated[
        float, typer.Option(help="So long after its last raw event what became of it is looked for.", min=0)
    ] = 24.0,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the path of a task, from webhook to Brevo: when it was where, what became of it, and its traces."""
    try:
        with reaching(nats_url, as_json=as_json):
            one = run(find(nats_url, what, hours=hours, jaeger_url=jaeger_url))
    except NothingError as error:
        raise failure(
            str(error),
            "is it older than the streams, or of another deployment?",
            code=FAILED,
            as_json=as_json,
        ) from error
    if as_json:
        show(one)
    else:
        _print(one)


def _print(one: Found) -> None:
    for raw in one.events:
        failed = "" if raw.verdict == "heard" else f"  dead letter: {raw.verdict}"
        out.print(
            f"{raw.at}  {raw.where}  {raw.type}  {raw.source}{escape(failed)}",
            soft_wrap=True,
            highlight=False,
        )
    for command in one.commands:
        name = command.name or command.kind
        out.print(
            f"\n[bold]{escape(command.id)}[/bold] {name}: {command.verdict}", soft_wrap=True, highlight=False
        )
        for hop in command.hops:
            why = f"  {hop.why}" if hop.why else ""
            out.print(
                f"  {hop.at}  {f'+{hop.ms:,} ms':>12}  {hop.what:<10}  {hop.where}{escape(why)}",
                soft_wrap=True, highlight=False,
            )  # fmt: skip
    if not one.commands:
        out.print(
            "\nBrevo was told nothing of it: it is not mapped, or waits for a name or the rest of its story"
        )
    out.print()
    for seen in one.traces:
        if seen.recorded:
            out.print(f"trace {seen.id}  {seen.url or 'recorded'}", soft_wrap=True, highlight=False)
    unrecorded = [seen.id for seen in one.traces if not seen.recorded]
    if unrecorded:
        which = f"trace {unrecorded[0]}" if len(unrecorded) == 1 else f"{len(unrecorded)} traces"
        out.print(f"{which}  not recorded", soft_wrap=True, highlight=False)
    if not one.complete:
        out.print(f"not all was read: more than {READ_MAX:,} messages in one stream")
