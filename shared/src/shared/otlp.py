"""Spans to a collector, by OpenTelemetry's SDK.  Imported only where spans are recorded: it costs memory.

What waits is bounded (OTEL_BSP_MAX_QUEUE_SIZE, 2,048 spans of some 2 KB; then the oldest go), is sent by a thread of the
SDK's own, and a collector that is away costs nobody but the spans: one log line an hour says so.
"""

import logging
import threading
import time
from collections.abc import Callable

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from shared import trace
from shared.span import Span

END_S = 2.0  # for what waits to be sent when we leave; an orderly stop hands over within so long
SAY_AGAIN_S = 3600.0  # a deployment without a collector is no news each minute

log = structlog.get_logger()

_SCOPE = InstrumentationScope("tajo")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class _OnceAnHour(logging.Handler):
    """What the SDK logs, without its words: they hold the address, and that may hold a password."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._said >= SAY_AGAIN_S:
            self._said = now
            log.warning(
                "spans_not_sent",
                where=record.name.rpartition(".")[2],
                meaning="work goes on; is there a collector at OTEL_EXPORTER_OTLP_ENDPOINT?",
            )


def exporter(service: str) -> tuple[Callable[[Span], None], Callable[[], None]]:
    """What takes a span, at once and without ever raising; and what sends those that wait, for END_S at most."""
    quiet = logging.getLogger("opentelemetry")
    quiet.handlers, quiet.propagate = [_OnceAnHour()], False
    resource = Resource.create({"service.name": service, "service.namespace": "tajo"})
    processor = BatchSpanProcessor(OTLPSpanExporter())

    def export(span: Span) -> None:
        processor.on_end(_readable(span, resource))

    def end() -> None:
        ending = threading.Thread(target=processor.shutdown, daemon=True)
        ending.start()
        ending.join(END_S)

    return export, end


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    context = _context(span.own)
    links = (_context(link) for link in span.links)
    return ReadableSpan(
        name=span.name,
        context=context,
        parent=_context(span.parent),
        resource=resource,
        attributes=span.attributes,
        links=[Link(link) for link in links if link],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=_SCOPE,
    )


def _context(traceparent: str) -> SpanContext | None:
    known = trace.ids(traceparent)
    return (
        SpanContext(int(known[0], 16), int(known[1], 16), is_remote=True, trace_flags=_SAMPLED)
        if known
        else None
    )
