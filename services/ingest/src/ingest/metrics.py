"""Ingest's metrics, each declared once."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """What ingest counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.webhooks = Counter(
            "tajo_ingest_webhooks",
            "Requests, by route and what became of them",
            ["route", "verdict"],
            registry=registry,
        )
        self.events = Counter(
            "tajo_ingest_events",
            "Raw events on disk, in log or spool, by route",
            ["route"],
            registry=registry,
        )
        self.seconds = Histogram(
            "tajo_ingest_seconds",
            "From the first byte of a request to its answer",
            registry=registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.5, 1, 2, 5),
        )
        self.spooled = Counter(
            "tajo_ingest_spooled",
            "Messages kept in the spool because the log did not take them",
            registry=registry,
        )
        self.drained = Counter(
            "tajo_ingest_drained", "Messages from the spool into the log", registry=registry
        )
        self.forgotten = Counter(
            "tajo_ingest_forgotten",
            "Messages not kept because who they are about was forgotten since",
            registry=registry,
        )
        self.spool_messages = Gauge("tajo_ingest_spool_messages", "Messages in the spool", registry=registry)
        self.spool_bytes = Gauge(
            "tajo_ingest_spool_bytes", "What the spool holds, in bytes of its file", registry=registry
        )
        self.quarantined = Counter(
            "tajo_ingest_quarantined",
            "Wrongly signed requests, by whether they are in quarantine",
            ["outcome"],
            registry=registry,
        )
        self.refused_run = Gauge(
            "tajo_ingest_refused_run", "Wrong signatures since the last right one", registry=registry
        )
