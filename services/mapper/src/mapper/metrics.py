"""The mapper's metrics, each declared once."""

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mapper.book import Size
from mapper.tally import Tally


class Metrics:
    """What the mapper counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.heard = Counter(
            "tajo_mapper_raw_events",
            "Raw events folded, by what was read in them; `unreadable` are dead letters",
            ["read"],
            registry=registry,
        )
        self.commands = Counter("tajo_mapper_commands", "Commands made, by kind", ["kind"], registry=registry)
        self.forgotten = Counter(
            "tajo_mapper_forgotten",
            "Raw events not folded, and erased, because who they are about was forgotten before",
            registry=registry,
        )
        self.nobody = Counter(
            "tajo_mapper_no_identity", "Events given up: nobody came within 30 days", registry=registry
        )
        self.sequence = Gauge(
            "tajo_mapper_sequence", "The last TWILIO sequence in the book", registry=registry
        )
        self.batch_seconds = Histogram(
            "tajo_mapper_batch_seconds",
            "A batch of raw events, from when it was handed over until it is folded, on disk and its commands are said",
            registry=registry,
            buckets=(0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 5, 20),
        )
        self.rows = Gauge(
            "tajo_mapper_book_rows",
            "What the book holds, as counted last: interactions, customers, agents",
            ["table"],
            registry=registry,
        )
        self.bytes = Gauge("tajo_mapper_book_bytes", "Size of the book's file", registry=registry)

    def measure(self, tally: Tally, file: Path) -> None:
        """Say how large the book is whenever somebody asks."""
        for table in Size._fields:

            def rows(table: str = table) -> float:
                return float(getattr(tally.size, table)) if tally.size else 0.0

            self.rows.labels(table).set_function(rows)
        self.bytes.set_function(lambda: float(file.stat().st_size) if file.exists() else 0.0)
