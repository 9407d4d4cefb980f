"""The poller's metrics, each declared once."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from poller.rates import Rates


class Metrics:
    """What the poller counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.read = Counter("tajo_poller_read", "Raw events read from Twilio", registry=registry)
        self.missed = Counter(
            "tajo_poller_missed",
            "Of these, what no webhook had told, and is in the log now",
            registry=registry,
        )
        self.forgotten = Counter(
            "tajo_poller_forgotten",
            "Of these, what is not stored because who it is about was forgotten since",
            registry=registry,
        )
        self.unreadable = Counter(
            "tajo_poller_unreadable", "Of these, what is a dead letter now", registry=registry
        )
        self.calls = Counter(
            "tajo_poller_calls",
            "Calls to Twilio, by limit and what was answered: its status, or `lost` where none came",
            ["limit", "status"],
            registry=registry,
        )
        self.cursor = Gauge(
            "tajo_poller_cursor_seconds",
            "Up to when everything is read, epoch seconds",
            ["resource"],
            registry=registry,
        )


class Limits(Collector):
    """What Twilio's limits allow us, whenever somebody asks."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates

    def collect(self) -> Iterator[Metric]:
        """Two families."""
        most = GaugeMetricFamily(
            "tajo_poller_calls_max", "Calls a second to Twilio we allow ourselves, by limit", labels=["limit"]
        )
        used = GaugeMetricFamily(
            "tajo_poller_calls_used", "Of these, how many count just now", labels=["limit"]
        )
        for name, limit, count in self._rates.used(time.monotonic()):
            most.add_metric([name], limit)
            used.add_metric([name], count)
        yield most
        yield used
