"""The sink's metrics, each declared once."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from brevo_sink.budget import Budget


class Metrics:
    """What the sink counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.calls = Counter(
            "tajo_brevo_sink_calls",
            "Calls to Brevo, by bucket and status",
            ["bucket", "status"],
            registry=registry,
        )
        self.call_seconds = Histogram(
            "tajo_brevo_sink_call_seconds",
            "A call to Brevo that was answered, by bucket",
            ["bucket"],
            registry=registry,
            buckets=(0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 5, 15),
        )
        self.latency = Histogram(
            "tajo_brevo_sink_latency_seconds",
            "From when the log stored the raw event that released a command until Brevo has it, by kind; without what is past or was tried again",
            ["kind"],
            registry=registry,
            buckets=(0.02, 0.04, 0.06, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
        )
        self.per_1000 = Gauge(
            "tajo_brevo_sink_calls_per_1000_commands",
            "Calls to Brevo for each thousand commands ended, since the start",
            registry=registry,
        )
        self.per_1000.set_function(lambda: per_1000(_total(self.calls), _total(self.commands)))
        self.commands = Counter(
            "tajo_brevo_sink_commands",
            "Commands ended, by kind and outcome",
            ["kind", "outcome"],
            registry=registry,
        )
        self.in_hand = Gauge("tajo_brevo_sink_in_hand", "Commands heard and not yet ended", registry=registry)
        self.in_doubt = Gauge(
            "tajo_brevo_sink_in_doubt", "Events of which nobody knows whether they arrived", registry=registry
        )
        self.ambiguous = Counter(
            "tajo_brevo_sink_ambiguous",
            "Commands of which a call, or a crash, left unknown whether they took effect, by kind",
            ["kind"],
            registry=registry,
        )
        self.read_back = Counter(
            "tajo_brevo_sink_read_back",
            "Events in doubt, by what became of them",
            ["result"],
            registry=registry,
        )
        self.waited = Counter(
            "tajo_brevo_sink_waited_seconds",
            "Waited for Brevo's limits, by bucket",
            ["bucket"],
            registry=registry,
        )
        self.paused = Gauge(
            "tajo_brevo_sink_paused", "1 while nothing is sent until somebody acts", registry=registry
        )

    def measure(self, budget: Budget) -> None:
        """Say what this budget allows, whenever somebody asks."""
        self._registry.register(Limits(budget))


class Limits(Collector):
    """What the budget allows, whenever somebody asks; a limit that is not known is left out."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def collect(self) -> Iterator[Metric]:
        """Two families."""
        most = GaugeMetricFamily(
            "tajo_brevo_sink_calls_max",
            "Calls to Brevo we allow ourselves, by bucket and window: second, hour",
            labels=["bucket", "window"],
        )
        left = GaugeMetricFamily(
            "tajo_brevo_sink_calls_left",
            "Of these, how many are left just now",
            labels=["bucket", "window"],
        )
        for bucket, window, limit, free in self._budget.left(time.monotonic()):
            most.add_metric([bucket, window], limit)
            left.add_metric([bucket, window], free)
        yield most
        yield left


def per_1000(calls: float, commands: float) -> float:
    """Calls for each thousand commands; 0 before the first command has ended."""
    return 1000 * calls / commands if commands else 0.0


def _total(counter: Counter) -> float:
    return sum(
        sample.value
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )
