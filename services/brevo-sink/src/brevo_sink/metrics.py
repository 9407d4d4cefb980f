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
