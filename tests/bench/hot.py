"""The files whose change may change a figure, once, and what names their state."""

import hashlib
from pathlib import Path

_SHARED = (
    "deploy/nats/nats.conf",
    *(f"shared/src/shared/{name}.py" for name in (
        "body", "bus", "command", "event", "headers", "message", "past", "plain", "protocol", "publish", "pull", "redact",
        "spans", "topology", "trace",
    )),
)  # fmt: skip
_INGEST = tuple(
    f"services/ingest/src/ingest/{name}.py"
    for name in ("commit", "judge", "keep", "signature", "sources", "spool", "webhook")
)
_MAPPER = tuple(
    f"services/mapper/src/mapper/{name}.py" for name in (
        "attributes", "beside", "book", "customer", "fold", "heard", "identity", "interaction", "made", "mapping",
        "readout", "rebuild", "refold", "said", "schema", "step", "take",
    )
)  # fmt: skip
_SINK = tuple(
    f"services/brevo-sink/src/brevo_sink/{name}.py" for name in (
        "brevo", "budget", "calls", "contacts", "delivery", "desk", "ends", "events", "hearing", "ledger", "papers", "request",
        "together",
    )
)  # fmt: skip

FILES = {
    "ingest": (*_SHARED, *_INGEST),
    "mapper": (*_SHARED, *_MAPPER),
    "rebuild": (*_SHARED, *_MAPPER),
    "sink": (*_SHARED, *_SINK),
    "whole": (*_SHARED, *_INGEST, *_MAPPER, *_SINK),
    "tracing": (*_SHARED, *_INGEST, *_MAPPER),
}
"""By measurement."""


def sources(root: Path, measurement: str) -> str:
    """A hash of what it depends on, as it is in this tree."""
    whole = hashlib.sha256()
    for name in FILES[measurement]:
        whole.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    return whole.hexdigest()[:16]
