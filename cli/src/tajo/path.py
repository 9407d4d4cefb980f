"""The path of a task, a conversation, an event or a command through the streams.  Pure: from messages to what is shown."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from shared import command as commands
from shared import dead, receipt, trace
from shared.command import EventTrack
from shared.event import rfc3339
from shared.message import MSG_ID

WAITS = "waits"  # of a command of which no receipt says anything yet


class Stored(Struct, frozen=True):
    """A message as it stands in a stream."""

    stream: str
    sequence: int
    at_ms: int  # when it was stored
    headers: dict[str, str]
    body: bytes

    @property
    def trace_id(self) -> str:
        """Of the trace it belongs to; empty where it belongs to none."""
        known = trace.ids(self.headers.get(trace.TRACEPARENT, ""))
        return known[0] if known else ""

    @property
    def where(self) -> str:
        """TWILIO:12"""
        return f"{self.stream}:{self.sequence}"


class Hop(Struct, frozen=True, kw_only=True):
    """One step, and how long it took from the one before."""

    at: str  # RFC 3339
    where: str
    what: str  # heard, said, or the outcome a receipt names
    ms: int = 0
    why: str = ""


class Path(Struct, frozen=True, kw_only=True):
    """A command, from the raw event that caused it to what became of it."""

    id: str
    kind: str
    name: str = ""  # of an event at Brevo
    verdict: str
    trace: str
    hops: list[Hop]


class Raw(Struct, frozen=True, kw_only=True):
    """A raw event."""

    at: str
    where: str
    type: str
    source: str
    id: str
    trace: str
    verdict: str = "heard"  # or why it is a dead letter


class Trace(Struct, frozen=True, kw_only=True):
    """A trace it passed through."""

    id: str
    recorded: bool
    url: str = ""  # in Jaeger


class Found(Struct, frozen=True, kw_only=True):
    """All of it."""

    id: str
    events: list[Raw]
    commands: list[Path]
    traces: list[Trace]
    complete: bool = True  # else not all that might belong to it was read


def is_about(one: Stored, id_: str, traces: Iterable[str]) -> bool:
    """Whether a message of BREVO belongs to it: it says so, or follows from what does."""
    if one.headers.get(MSG_ID, "") == id_ or one.trace_id in traces:
        return True
    return id_.encode() in one.body if _is_sid(id_) else False


def mentions(one: Stored, id_: str) -> bool:
    """Whether a message of TWILIO tells of it."""
    entity = entity_of(id_)
    return entity in (one.headers.get("ce-subject"), one.headers.get("ce-id")) or entity.encode() in one.body


def entity_of(id_: str) -> str:
    """The sid that a command's id begins with; the id itself where it is a sid."""
    return id_.partition("/")[0]


def _is_sid(id_: str) -> bool:
    return "/" not in id_ and len(id_) == 34


def closes(said: receipt.Receipt, id_: str, ids: Iterable[str]) -> list[str]:
    """Which of the commands a receipt tells of; of one given up there is no command, only this."""
    known = set(ids)
    wanted = f"{entity_of(id_)}/"
    return [
        one
        for one in said.ids
        if one in known
        or (said.outcome == "no_identity" and (one == id_ or (_is_sid(id_) and one.startswith(wanted))))
    ]


def found(
    id_: str,
    *,
    raws: Sequence[Stored],
    said: Sequence[Stored],
    receipts: Sequence[Stored],
    letters: Sequence[Stored],
    jaeger_url: str = "",
    complete: bool = True,
) -> Found:
    """Join them."""
    dead_ids = {
        letter.msg_id: letter.why
        for letter in (
            dead.from_message(sequence=one.sequence, written="", headers=one.headers, body=b"")
            for one in letters
        )
        if letter.msg_id
    }
    paths = [_path(one, raws, receipts) for one in said]
    told = {path.id for path in paths}
    for one in receipts:
        closed = receipt.from_body(one.body)
        if closed.outcome == "no_identity":
            paths += [
                Path(
                    id=each, kind=closed.kind, verdict=closed.outcome, trace="",
                    hops=[Hop(at=rfc3339(one.at_ms), where=one.where, what=closed.outcome, why=closed.why)],
                )
                for each in closes(closed, id_, ())
                if each not in told
            ]  # fmt: skip
    events = [
        Raw(
            at=rfc3339(one.at_ms),
            where=one.where,
            type=one.headers.get("ce-type", "").removeprefix("com.twilio."),
            source=one.headers.get("ce-source", ""),
            id=one.headers.get("ce-id", ""),
            trace=one.trace_id,
            verdict=dead_ids.get(one.headers.get(MSG_ID, ""), "heard"),
        )
        for one in raws
    ]
    traces = {
        one.trace_id: trace.sampled(one.headers[trace.TRACEPARENT]) for one in (*raws, *said) if one.trace_id
    }
    return Found(
        id=id_,
        events=events,
        commands=paths,
        traces=[
            Trace(
                id=one,
                recorded=recorded,
                url=f"{jaeger_url.rstrip('/')}/trace/{one}" if jaeger_url and recorded else "",
            )
            for one, recorded in traces.items()
        ],
        complete=complete,
    )


def _path(one: Stored, raws: Sequence[Stored], receipts: Sequence[Stored]) -> Path:
    id_ = one.headers.get(MSG_ID, "")
    steps: list[tuple[int, str, str, str]] = [(one.at_ms, one.where, "said", "")]
    heard = [raw for raw in raws if raw.trace_id and raw.trace_id == one.trace_id]
    if heard:
        steps.insert(0, (heard[0].at_ms, heard[0].where, "heard", ""))
    verdict = WAITS
    for stored in receipts:
        said = receipt.from_body(stored.body)
        if id_ in said.ids:
            steps.append((stored.at_ms, stored.where, said.outcome, said.why))
            verdict = said.outcome
    hops = [
        Hop(at=rfc3339(at_ms), where=where, what=what, why=why, ms=at_ms - before[0])
        for before, (at_ms, where, what, why) in zip([steps[0], *steps], steps, strict=False)
    ]
    try:
        command = commands.from_body(one.body)
    except msgspec.MsgspecError:  # of a later version than ours
        return Path(id=id_, kind="unreadable", verdict=verdict, trace=one.trace_id, hops=hops)
    name = command.name if isinstance(command, EventTrack) else ""
    return Path(
        id=id_, kind=commands.kind(command), name=name, verdict=verdict, trace=one.trace_id, hops=hops
    )
