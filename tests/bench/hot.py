"""The files whose change may change a figure, once, and what names their state."""

import hashlib
from pathlib import Path

FILES = (
    *(f"shared/src/shared/{name}.py" for name in (
        "bus", "command", "event", "headers", "message", "past", "protocol", "redact", "topology", "trace",
    )),
    *(f"services/ingest/src/ingest/{name}.py" for name in (
        "commit", "judge", "keep", "signature", "sources", "spool", "webhook",
    )),
    *(f"services/mapper/src/mapper/{name}.py" for name in (
        "attributes", "book", "customer", "fold", "heard", "identity", "interaction", "mapping", "rebuild", "said", "step",
        "take",
    )),
    *(f"services/brevo-sink/src/brevo_sink/{name}.py" for name in (
        "brevo", "budget", "contacts", "delivery", "desk", "ends", "events", "ledger", "papers", "request",
    )),
    "deploy/nats/nats.conf",
)  # fmt: skip


def sources(root: Path) -> str:
    """A hash of all of them, as they are in this tree."""
    whole = hashlib.sha256()
    for name in FILES:
        whole.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    return whole.hexdigest()[:16]
