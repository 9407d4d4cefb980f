"""The files whose change may change a figure, once, and what names their state."""

import hashlib
from pathlib import Path

_SHARED = (
    "deploy/nats/nats.conf",
    *(f"shared/src/shared/{name}.py" for name in (
        "body", "bus", "command", "event", "headers", "message", "past", "plain", "protocol", "publish", "pull", "span",
        "spans", "tombstone", "topology", "trace",
    )),
)  # fmt: skip
_INGEST = (
    "shared/src/shared/redact.py",
    *(f"services/ingest/src/ingest/{name}.py" for name in (
        "commit", "forgetting", "judge", "keep", "quarantine", "signature", "sources", "spool", "webhook",
    )),
)  # fmt: skip
_MAPPER = tuple(
    f"services/mapper/src/mapper/{name}.py" for name in (
        "attributes", "backlog", "beside", "book", "customer", "fold", "heard", "identity", "interaction", "made", "mapping",
        "readout", "rebuild", "refold", "said", "schema", "search", "step", "take",
    )
)  # fmt: skip
_SINK = (
    *(f"shared/src/shared/{name}.py" for name in ("dead", "lease", "receipt")),
    *(f"services/brevo-sink/src/brevo_sink/{name}.py" for name in (
        "alone", "answer", "brevo", "budget", "calls", "contacts", "delivery", "desk", "ends", "events", "gate", "hearing",
        "ledger", "order", "papers", "request", "together",
    )),
)  # fmt: skip
_START = ("cli/src/tajo/up.py", "cli/src/tajo/supervise.py", "shared/src/shared/service.py")

FILES = {
    "ingest": (*_SHARED, *_INGEST),
    "mapper": (*_SHARED, *_MAPPER),
    "rebuild": (*_SHARED, *_MAPPER),
    "sink": (*_SHARED, *_SINK),
    "whole": (*_SHARED, *_INGEST, *_MAPPER, *_SINK, *_START),
    "tracing": ("shared/src/shared/otel.py", *_SHARED, *_INGEST, *_MAPPER),
}
"""By measurement."""


def sources(root: Path, measurement: str) -> str:
    """A hash of what it depends on, as it is in this tree."""
    whole = hashlib.sha256()
    for name in FILES[measurement]:
        whole.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    return whole.hexdigest()[:16]
