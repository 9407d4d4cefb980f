"""docs/performance.md, its pictures, its history docs/performance.json, and docs/scaling.md: what the last runs found."""

import datetime as dt
import math
import os
import platform
import subprocess
import time
from pathlib import Path

import msgspec

from tajo import nats_server
from tests.bench import drawing, scaling
from tests.bench.figures import Figure, Found, changed, table

RUNS_MAX = 50  # of each measurement, in the history: a year of weekly ones

HEAD = """# Performance

What `make bench` measured: real processes, a real broker with every acknowledgement on disk (`sync_interval: always`), generator and
Brevo's stand-in in processes of their own. Written by it; do not edit.

A machine with other work is slower than the same machine alone, and nothing here can change that; so each figure stands beside a ceiling
measured in the same minutes, and the ratio of the two decides. Seconds of CPU (user and system time of the process) say what a core
carries; they too grow, by half and more, where caches are shared. How long a million additions take, below, says how fast a core was.

Every figure and every point of a curve on this page was measured; what is multiplied from them is in [scaling.md](scaling.md) alone.
"""


class Run(msgspec.Struct):
    """One measurement."""

    at: str  # RFC 3339
    machine: str
    sources: str  # their hash: hot.py
    numbers: dict[str, float]


class History(msgspec.Struct):
    """docs/performance.json."""

    last: dict[str, Found] = {}  # of each measurement, what the page shows
    runs: dict[str, list[Run]] = {}  # of each, the oldest first

    @classmethod
    def read(cls, path: Path) -> "History":
        """Empty where there is none yet."""
        return msgspec.json.decode(path.read_bytes(), type=cls) if path.exists() else cls()

    def add(self, name: str, found: Found, run: Run) -> None:
        """The newest of a measurement."""
        self.last[name] = found
        self.runs[name] = [*self.runs.get(name, []), run][-RUNS_MAX:]


def write(history: History, docs: Path) -> None:
    """All of them, from the history as it will be read: so another time they come out the same."""
    told = msgspec.json.format(msgspec.json.encode(history, order="deterministic"), indent=1)
    (docs / "performance.json").write_bytes(told + b"\n")
    history = History.read(docs / "performance.json")
    pictures = docs / "performance"
    pictures.mkdir(exist_ok=True)
    for found in history.last.values():
        for curve in found.curves:
            (pictures / f"{curve.name}.svg").write_text(drawing.svg(curve), encoding="utf-8")
    (docs / "performance.md").write_text(markdown(history), encoding="utf-8")
    numbers = {name: value for found in history.last.values() for name, value in found.numbers.items()}
    if all(name in numbers for name in scaling.NEEDED):
        (docs / "scaling.md").write_text(scaling.markdown(numbers), encoding="utf-8")


def markdown(history: History) -> str:
    """The page."""
    figures: list[Figure] = []
    curves, texts, ran, grown = [], [], [], []
    for name, found in history.last.items():
        run, *before = reversed(history.runs[name])
        figures += found.figures
        texts += [found.text] if found.text else []
        ran.append(f"| {name} | {run.at[:16].replace('T', ' ')} | {run.machine} | `{run.sources}` |")
        curves += [
            f"![{curve.title}](performance/{curve.name}.svg)\n\n{curve.says}".strip()
            for curve in found.curves
        ]
        if before and (lines := changed(before[0].numbers, run.numbers)):
            grown += [f"{name}, before on {before[0].machine}:\n", *(f"- {line}" for line in lines), ""]
    parts = [
        HEAD, table(figures), *texts,
        "## How cost grows", *curves,
        "## What changed by more than a fifth since the run before", "\n".join(grown) or "Nothing.",
        "## When and on what",
        "\n".join(["| measurement | when, UTC | machine | sources |", "|---|---|---|---|", *ran]),
        "The history is in [performance.json](performance.json).",
    ]  # fmt: skip
    return "\n\n".join(part.strip() for part in parts) + "\n"


def this_machine() -> str:
    """In a few words."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    said = subprocess.run(
        [str(nats_server.binary()), "--version"], capture_output=True, text=True, check=True
    )
    version = said.stdout.strip().removeprefix("nats-server: v")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    return (
        f"{os.cpu_count()} cores {cpu}, {gib:.0f} GiB, {platform.system()} {platform.release().split('-')[0]},"
        f" Python {platform.python_version()}, nats-server {version}; a million additions take Python {million_ms():.0f} ms"
    )


def million_ms() -> float:
    """How fast one core is just now: the best of five loops of a million additions."""
    best = math.inf
    for _ in range(5):
        began, total = time.perf_counter(), 0
        for number in range(1_000_000):
            total += number
        best = min(best, time.perf_counter() - began)
    return best * 1000


def now() -> str:
    """RFC 3339, UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
