"""Every span there is: its name, its kind and its attributes, once.  Pure: spans are values, made when they have ended.

Names are where and what, as docs/tracing.md has them.  Attributes are OpenTelemetry's for messaging and HTTP, and ours:
https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/, https://opentelemetry.io/docs/specs/semconv/http/http-spans/
No attribute holds what a customer is called by or wrote: paths are told with {names} for what stands in them.
"""

from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from shared import trace

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | bool]

INGEST = "ingest POST"
MAPPER = "mapper process"
REFOLD = "mapper refold"
RETELL = "mapper retell"
SINK = "brevo-sink send"
POLLER = "poller read"
PUBLISH = "{} publish"  # the stream

LINKS_MAX = 128  # of one span, as OpenTelemetry's own limit: OTEL_SPAN_LINK_COUNT_LIMIT


class Span(Struct, frozen=True, kw_only=True):
    """Something that was done, and has ended."""

    name: str
    kind: Kind
    own: str  # its traceparent
    parent: str = ""  # that of what caused it; empty for the root of a trace
    start_ns: int  # of the epoch
    end_ns: int
    attributes: Attributes = {}
    links: tuple[str, ...] = ()  # traceparents
    error: str = ""  # why it failed; no personal data


def received(
    *, own: str, route: str, method: str, status: int, verdict: str, task_sid: str, start_ns: int, end_ns: int
) -> Span:
    """A webhook, answered.  What is read and cannot be is a failure though Twilio hears 2xx."""
    return Span(
        name=INGEST,
        kind="server",
        own=own,
        start_ns=start_ns,
        end_ns=end_ns,
        attributes={
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "tajo.verdict": verdict,
            **task(task_sid),
        },
        error=verdict if status >= 500 or verdict == "dead" else "",
    )


def published(
    stream: str, *, own: str, parent: str, id_: str, count: int, start_ns: int, end_ns: int, about: Attributes
) -> Span:
    """One message, or several at once in the same trace, on disk."""
    return Span(
        name=PUBLISH.format(stream),
        kind="producer",
        own=own,
        parent=parent,
        start_ns=start_ns,
        end_ns=end_ns,
        attributes={**messaging(stream, "publish", "send", id_=id_, count=count), **about},
    )


def messaging(
    stream: str,
    name: str,
    type_: Literal["send", "process"],
    *,
    id_: str = "",
    count: int = 0,
    group: str = "",
) -> Attributes:
    """What is said of messages: of one its id, of several how many; `group` is the durable they were heard through."""
    return {
        "messaging.system": "nats",
        "messaging.destination.name": stream,
        "messaging.operation.name": name,
        "messaging.operation.type": type_,
        **({"messaging.message.id": id_} if id_ else {}),
        **({"messaging.batch.message_count": count} if count > 1 else {}),
        **({"messaging.consumer.group.name": group} if group else {}),
    }


def called(
    method: str, url: str, route: str, *, start_ns: int, end_ns: int, status: int = 0, error: str = ""
) -> Span:
    """A call over HTTP, whose parent is not known yet; `route` stands for the path and names nobody."""
    where = urlsplit(url)
    port = where.port or (443 if where.scheme == "https" else 80)
    return Span(
        name=f"{method} {route}",
        kind="client",
        own="",
        start_ns=start_ns,
        end_ns=end_ns,
        attributes={
            "http.request.method": method,
            "url.full": f"{where.scheme}://{where.hostname}:{port}{where.path.rstrip('/')}{route}",
            "url.template": route,
            "server.address": where.hostname or "",
            "server.port": port,
            **({"http.response.status_code": status} if status else {}),
            **({"error.type": error or str(status)} if error or status >= 400 else {}),
        },
        error=error or (f"HTTP {status}" if status >= 400 else ""),
    )


def task(sid: str) -> Attributes:
    """The task it is about, if any."""
    return {"twilio.task_sid": sid} if sid.startswith("WT") else {}


def resource(name: str, *, backfill: bool = False) -> Attributes:
    """What is read of Twilio."""
    return {"tajo.resource": name, "tajo.backfill": backfill}


def counted(read: int, missed: int) -> Attributes:
    """What a page held, and what of it no webhook had told."""
    return {"tajo.read": read, "tajo.missed": missed}


def command(id_: str) -> Attributes:
    """The command it is about."""
    return {"tajo.command_id": id_}


def rescued(span: Span) -> Span:
    """What failed in a trace that is not recorded, by itself: its cause was never told of, so it is linked instead."""
    return replace(
        span,
        own=trace.chosen(span.own),
        parent="",
        links=(*((span.parent,) if span.parent else ()), *span.links)[:LINKS_MAX],
    )
