"""What a Prometheus counter has come to."""

from collections.abc import Collection

from prometheus_client import Counter


def total(counter: Counter, label: str = "", among: Collection[str] = ()) -> int:
    """Since the process began; with a label, over those of its values that are named."""
    return int(
        sum(
            sample.value
            for metric in counter.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and (not label or sample.labels[label] in among)
        )
    )
