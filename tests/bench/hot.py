"""The files whose change may change a figure, once, and what names their state."""

import hashlib
from pathlib import Path

_SHARED = (
    "deploy/nats/nats.conf",
    "config/tajo.yaml",  # the mapping that is measured
    *(f"shared/src/shared/{name}.py" for name in (
        "body", "bus", "command", "config", "event", "headers", "message", "past", "plain", "protocol", "publish", "pull",
        "service", "span", "spans", "tombstone", "topology", "trace",
    )),
)  # fmt: skip
_INGEST = (
    "shared/src/shared/redact.py",
    *(f"services/ingest/src/ingest/{name}.py" for name in (
        "commit", "forgetting", "judge", "keep", "main", "quarantine", "signature", "sources", "spool", "webhook",
    )),
)  # fmt: skip
_MAPPER = tuple(
    f"services/mapper/src/mapper/{name}.py" for name in (
        "attributes", "backlog", "beside", "book", "customer", "fold", "heard", "identity", "interaction", "main", "made",
        "mapping", "readout", "rebuild", "recognise", "refold", "said", "schema", "search", "step", "take",
    )
)  # fmt: skip
_SINK = (
    *(f"shared/src/shared/{name}.py" for name in ("dead", "lease", "receipt")),
    *(f"services/brevo-sink/src/brevo_sink/{name}.py" for name in (
        "alone", "answer", "brevo", "budget", "calls", "contacts", "delivery", "desk", "doubt", "ends", "events", "gate",
        "hearing", "ledger", "main", "order", "papers", "request", "together",
    )),
)  # fmt: skip
_IDLE = tuple(f"shared/src/shared/{name}.py" for name in ("pulse", "vitals"))
_POLLER = tuple(
    f"services/poller/src/poller/{name}.py" for name in (
        "answer", "backfills", "conversations", "intake", "items", "main", "poll", "rates", "resource", "tasks", "twilio", "work",
    )
)  # fmt: skip
_START = ("cli/src/tajo/up.py", "cli/src/tajo/supervise.py")

FILES = {
    "ingest": (*_SHARED, *_INGEST),
    "mapper": (*_SHARED, *_MAPPER),
    "rebuild": (*_SHARED, *_MAPPER),
    "sink": (*_SHARED, *_SINK),
    "poller": (*_SHARED, *_POLLER),
    "whole": (*_SHARED, *_INGEST, *_MAPPER, *_SINK, *_POLLER, *_IDLE, *_START),
    "tracing": (*(f"shared/src/shared/{name}.py" for name in ("otel", "otlp")), *_SHARED, *_INGEST, *_MAPPER),
}
"""By measurement."""

_BENCH = {
    name: tuple(f"tests/bench/{module}.py" for module in ("machine", *modules))
    for name, modules in {
        "ingest": ("ingest", "load", "bare"), "mapper": ("live", "history"), "rebuild": ("rebuild", "history"),
        "sink": ("sink", "brevo"), "poller": ("poller",), "whole": ("whole", "brevo"), "tracing": ("tracing",),
    }.items()
}  # fmt: skip
"""Measured another way, it is another figure."""


def sources(root: Path, measurement: str) -> str:
    """A hash of what it depends on, as it is in this tree."""
    whole = hashlib.sha256()
    for name in (*FILES[measurement], *_BENCH[measurement]):
        whole.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    return whole.hexdigest()[:16]
