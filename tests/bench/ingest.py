"""Webhooks into the log: as fast as 64 connections can, at a pace, and with one process more."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from shared.topology import TWILIO
from tests.bench import machine
from tests.bench.figures import Curve, Figure, Found, memory
from tests.bench.load import Order, Report

FULL, QUICK = (16_000, 3, 10_000), (300, 1, 200)  # webhooks a round, rounds, webhooks at the pace
PACE = 1000  # webhooks a second, of the second figure
CONNECTIONS = 64  # to each process
LIMIT_BUSY = 0.9  # from here on the generator is what is measured


def loaded(order: Order) -> Report:
    """Send, from another process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.load"],
        input=msgspec.json.encode(order) + b"\n", stdout=subprocess.PIPE, check=True, cwd=machine.ROOT,
    )  # fmt: skip
    report = msgspec.json.decode(done.stdout, type=Report)
    if set(report.statuses) != {204}:
        raise RuntimeError(f"not every webhook was taken: {report.statuses}")
    return report


class Round(NamedTuple):
    """One way, once."""

    report: Report
    cpu_us: float  # of a webhook, of those who answer
    broker_cpu_us: float


class Bare(machine.Process):
    """A server without a broker: bare.py."""

    def __init__(self, which: str, folder: Path) -> None:
        port = machine.free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            [sys.executable, "-m", "tests.bench.bare", which, str(port)], folder / f"{which}.log"
        )

    ready = machine.Service.ready


def measure(*, quick: bool) -> Found:
    """Three figures and a curve.  Each way in turn, several times, because other work on the machine changes."""
    count, rounds, paced = QUICK if quick else FULL
    with machine.folder() as folder, machine.broker(folder) as broker:
        ways = {
            "empty": Bare("empty", folder),
            "unkept": Bare("unkept", folder),
            "ingest": machine.Service("ingest", folder / "1", broker.url),
            "second": machine.Service("ingest", folder / "2", broker.url),
        }
        try:
            for one in ways.values():
                one.ready()
            took: dict[str, list[Round]] = {}
            seed = stored = 0  # other sids each time, or the log would know them
            for _ in range(rounds):
                for name, urls in (
                    ("empty", [ways["empty"].url]),
                    ("unkept", [ways["unkept"].url]),
                    ("ingest", [ways["ingest"].url]),
                    ("two", [ways["ingest"].url, ways["second"].url]),
                ):
                    before, broker_s = sum(one.cpu_s for one in ways.values()), broker.cpu_s
                    seed += 1
                    report = loaded(Order(urls, count, CONNECTIONS * len(urls), seed=seed))
                    cpu_s = sum(one.cpu_s for one in ways.values()) - before
                    one = Round(report, cpu_s / count * 1e6, (broker.cpu_s - broker_s) / count * 1e6)
                    took.setdefault(name, []).append(one)
                    stored += count if name in ("ingest", "two") else 0
            slow = loaded(Order([ways["ingest"].url], paced, per_s=PACE, seed=seed + 1))
            machine.holds(broker.url, TWILIO, stored + paced)
            peak_mb = ways["ingest"].peak_mb
        finally:
            for one in ways.values():
                one.end()
    median = {
        name: sorted(rounds, key=lambda one: one.report.per_s)[len(rounds) // 2]
        for name, rounds in took.items()
    }
    best = {name: one.report for name, one in median.items()}
    ours, bare, one, two = best["ingest"], best["unkept"], median["ingest"], median["two"]
    figures = [
        Figure(
            what="ingest, signed form webhooks, on disk before the 204, 64 connections",
            found=f"{ours.per_s:,.0f}/s, p99 {ours.p99_ms:.0f} ms, {one.cpu_us:.0f} µs of CPU each",
            target="≥ 4,000/s, p99 ≤ 40 ms",
            ceiling=f"the same handler without a broker: {bare.per_s:,.0f}/s; an empty one: {best['empty'].per_s:,.0f}/s",
            ratio=ours.per_s / bare.per_s,
            least=0.4,
            met=ours.per_s >= 4000 and ours.p99_ms <= 40,
        ),
        Figure(
            what=f"ingest at {PACE:,}/s",
            found=f"p50 {slow.p50_ms:.1f} ms, p99 {slow.p99_ms:.1f} ms, {slow.per_s:,.0f}/s answered",
            target="p50 ≤ 8 ms, p99 ≤ 20 ms",
            met=slow.p50_ms <= 8 and slow.p99_ms <= 20,
        ),
        memory("ingest", peak_mb),
    ]
    limited = [name for name, one in best.items() if one.busy > LIMIT_BUSY]
    numbers = {
        "ingest.per_s": ours.per_s,
        "ingest.p99_ms": ours.p99_ms,
        "ingest.cpu_us": one.cpu_us,
        "ingest.broker_cpu_us": one.broker_cpu_us,
        "ingest.ratio": ours.per_s / bare.per_s,
        "ingest.paced_p50_ms": slow.p50_ms,
        "ingest.paced_p99_ms": slow.p99_ms,
        "ingest.two_per_s": best["two"].per_s,
        "ingest.two_cpu_us": two.cpu_us,
        "ingest.peak_mb": peak_mb,
    }
    curve = Curve(
        name="ingest-processes", title="ingest: one process, two", x="ingest processes", y="webhooks/s",
        lines={f"{CONNECTIONS} connections to each": [(1, ours.per_s), (2, best["two"].per_s)]},
        says=(
            "Broker and generator share the machine with them: of a webhook"
            f" {one.cpu_us:.0f} µs of CPU are ingest's and {one.broker_cpu_us:.0f} the broker's with one process,"
            f" {two.cpu_us:.0f} and {two.broker_cpu_us:.0f} with two."
        ),
    )  # fmt: skip
    text = f"The load generator was the limit of: {', '.join(limited)}." if limited else ""
    return Found(figures=figures, curves=[curve], numbers=numbers, text=text)
