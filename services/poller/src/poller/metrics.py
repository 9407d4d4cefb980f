"""The poller's metrics, each declared once."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """What the poller counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.read = Counter("tajo_poller_read", "Raw events read from Twilio", registry=registry)
        self.missed = Counter(
            "tajo_poller_missed",
            "Of these, what no webhook had told, and is in the log now",
            registry=registry,
        )
        self.unreadable = Counter(
            "tajo_poller_unreadable", "Of these, what is a dead letter now", registry=registry
        )
        self.cursor = Gauge(
            "tajo_poller_cursor_seconds",
            "Up to when everything is read, epoch seconds",
            ["resource"],
            registry=registry,
        )
