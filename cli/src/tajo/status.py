"""What a deployment does, judged from what its services and its broker say.  Pure: the time is an argument."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from shared.event import rfc3339
from shared.heartbeat import SILENT_S, BrevoSinkCounts, Heartbeat, IngestCounts, MapperCounts
from shared.topology import CONSUMERS, DEAD, QUARANTINE, STATUS, STREAMS, TWILIO

BOOTSTRAP = "run `tajo bootstrap`, then start the services of this version"
C = TypeVar("C", bound=Struct)


class Beat(Struct, frozen=True):
    """A heartbeat, and when the broker stored it."""

    said: Heartbeat
    at: datetime


class Lag(Struct, frozen=True, rename="camel"):
    """What a durable has not done yet."""

    pending: int  # not yet handed over
    in_hand: int  # handed over, and not acked


class Stored(Struct, frozen=True):
    """A stream."""

    messages: int
    last: datetime  # when the last of them was stored; of a stream never used the year 1


class Seen(Struct, frozen=True, kw_only=True):
    """What was read of a deployment.  A stream, durable or bucket that does not exist is left out, or None."""

    now: datetime  # the broker's, so that no clock is compared with another
    beats: Sequence[Beat] | None
    streams: Mapping[str, Stored]
    lags: Mapping[str, Lag]
    cursors: Mapping[str, int]  # resource → epoch ms up to which it is read


class Service(Struct, frozen=True, rename="camel", kw_only=True):
    """One process."""

    service: str
    instance: str
    version: str
    role: Literal["working", "standby", "silent"]
    ready: bool
    why: str
    note: str
    since: str
    heard_ago_s: float
    counts: dict[str, Any]


class Finding(Struct, frozen=True, rename="camel"):
    """What is wrong, why, and what to do.  An error says that Flex and Brevo are not connected."""

    level: Literal["error", "warning"]
    what: str
    cause: str
    remedy: str


class Status(Struct, frozen=True, rename="camel", kw_only=True):
    """The answer.  None where nobody knows just now."""

    connected: bool
    last_sync: str | None
    conversations_tracked: int | None
    customers_linked: int | None
    agents_monitored: int | None
    last_event: str | None
    lag: Mapping[str, Lag]
    dead_letters: int | None
    quarantined: int | None
    spooled: int | None
    in_doubt: int | None
    paused: str | None
    cursors: Mapping[str, str]
    services: Sequence[Service]
    findings: Sequence[Finding]


def judge(seen: Seen, services: Sequence[str]) -> Status:
    """What that comes to, where each of these services shall run."""
    processes = sorted(
        (_process(beat, seen.now) for beat in seen.beats or ()), key=lambda one: (one.service, one.instance)
    )
    findings = [
        *_missing(seen),
        *(finding for name in services for finding in _of_service(name, processes, known=seen.beats is not None)),
        *_left_over(seen, processes),
    ]  # fmt: skip
    book = _counts(MapperCounts, "mapper", processes)
    sink = _counts(BrevoSinkCounts, "brevo-sink", processes)
    ingest = _counts(IngestCounts, "ingest", processes)
    last = seen.streams.get(TWILIO.name)
    return Status(
        connected=not any(finding.level == "error" for finding in findings),
        last_sync=rfc3339(max(seen.cursors.values())) if seen.cursors else None,
        conversations_tracked=book[0].interactions if book else None,
        customers_linked=book[0].customers if book else None,
        agents_monitored=book[0].agents if book else None,
        last_event=rfc3339(round(last.last.timestamp() * 1000)) if last and last.last.year > 1 else None,
        lag=seen.lags,
        dead_letters=_messages(seen, DEAD.name),
        quarantined=_messages(seen, QUARANTINE.name),
        spooled=sum(one.spooled for one in ingest) if ingest else None,
        in_doubt=sink[0].in_doubt if sink else None,
        paused=sink[0].paused or None if sink else None,
        cursors={name: rfc3339(ms) for name, ms in sorted(seen.cursors.items())},
        services=processes,
        findings=findings,
    )


def _process(beat: Beat, now: datetime) -> Service:
    said, ago_s = beat.said, max((now.astimezone(UTC) - beat.at).total_seconds(), 0.0)
    silent = ago_s > SILENT_S
    return Service(
        service=said.service,
        instance=said.instance,
        version=said.version,
        role="silent" if silent else said.role,
        ready=not silent and not said.why,
        why=said.why,
        note=said.note,
        since=said.since,
        heard_ago_s=round(ago_s, 1),
        counts=said.counts,
    )


def _missing(seen: Seen) -> Iterable[Finding]:
    """What `tajo bootstrap` would have made."""
    gone = [f"the stream {stream.name}" for stream in STREAMS if stream.name not in seen.streams]
    gone += [f"the durable {consumer.durable}" for consumer in CONSUMERS if consumer.durable not in seen.lags]
    gone += [f"the bucket {STATUS.name}"] if seen.beats is None else []
    if gone:
        yield Finding("error", f"the broker lacks {', '.join(gone)}", "it was not made", BOOTSTRAP)


def _of_service(name: str, processes: Iterable[Service], *, known: bool) -> Iterable[Finding]:
    """What is wrong with a service that shall run; with no bucket nobody knows, and that was said."""
    theirs = [one for one in processes if one.service == name]
    there = [one for one in theirs if one.role != "silent"]
    silent = [one for one in theirs if one.role == "silent"]
    working = [one for one in there if one.role == "working"]
    if not there and known:
        last = min((one.heard_ago_s for one in silent), default=None)
        cause = (
            f"its last heartbeat is {last:.0f} s old"
            if last is not None
            else "it has said nothing for a minute"
        )
        remedy = f"its log says why it ended; start it: `tajo up`, or `docker compose up -d {name}`"
        yield Finding("error", f"{name} is not running", cause, remedy)
        return
    if there and not working:
        cause = next((one.why for one in there if one.why), "") or "those there are stand by for another"
        yield Finding(
            "error", f"no {name} works", cause, "one takes over within 10 s, unless its log says why not"
        )
    for one in working:
        if one.why:
            level: Literal["error", "warning"] = "warning" if any(w.ready for w in working) else "error"
            remedy = "do what it says, else wait: it goes on by itself"
            yield Finding(level, f"{name} on {one.instance} cannot work", one.why, remedy)
        elif one.note:
            yield Finding(
                "warning",
                f"{name} on {one.instance} works",
                one.note,
                "nothing, if that is meant; else its log says more",
            )
    for one in silent:
        cause = f"its last heartbeat is {one.heard_ago_s:.0f} s old"
        yield Finding("warning", f"{name} on {one.instance} is silent", cause, "look at its log if it shall run")  # fmt: skip


def _left_over(seen: Seen, processes: Iterable[Service]) -> Iterable[Finding]:
    """What lies about until a person looks at it."""
    if dead := _messages(seen, DEAD.name):
        yield Finding(
            "warning", _many(dead, "dead letter"), "they can never work as they are",
            "`tajo dlq ls` says why; when that is mended, `tajo dlq retry` says them again",
        )  # fmt: skip
    if quarantined := _messages(seen, QUARANTINE.name):
        yield Finding(
            "warning", f"{_many(quarantined, 'webhook')} in quarantine", "wrongly signed",
            "was our token or URL the mistake, `tajo quarantine recheck` takes them back",
        )  # fmt: skip
    versions = sorted({one.version for one in processes if one.role != "silent"})
    if len(versions) > 1:
        yield Finding(
            "warning", f"services of the versions {', '.join(versions)} run", "not all were updated", "update the others"
        )  # fmt: skip


def _counts(kind: type[C], service: str, processes: Iterable[Service]) -> list[C]:
    """What the working processes of a service count; nothing of another version's that we cannot read."""
    found: list[C] = []
    for one in processes:
        if one.service == service and one.role == "working":
            try:
                found.append(msgspec.convert(one.counts, kind))
            except msgspec.ValidationError:
                continue
    return found


def _messages(seen: Seen, stream: str) -> int | None:
    return seen.streams[stream].messages if stream in seen.streams else None


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
