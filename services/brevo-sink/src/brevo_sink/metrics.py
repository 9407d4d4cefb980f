"""The sink's metrics, each declared once."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """What the sink counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "tajo_brevo_sink_calls",
            "Calls to Brevo, by bucket and status",
            ["bucket", "status"],
            registry=registry,
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
