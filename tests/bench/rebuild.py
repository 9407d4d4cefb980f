"""The fold: a mapper without a book makes it anew of a log, as after a lost disk; until it is at the log's end.

Beside it, in the same run, what nothing that reads this log and keeps a book can do without: nats-py reading the messages and
doing nothing with them, and SQLite writing the rows of that book.
"""

import asyncio
import json
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import nats
import uvloop
from nats.aio.msg import Msg

from shared.topology import MAPPER, TWILIO
from tests.bench import history, machine
from tests.bench.figures import Curve, Figure, Found

LOOK_S = 0.02
TENTH_S = 0.1  # the mapper's line says no finer; a short fold is over sooner, as its CPU is within a tick
BATCH = 2000  # messages the mapper folds at once: shared/past.py
ROW_BYTES = 1500  # of an interaction in the book, index and all: 150 MB hold 100,000


class Fold(msgspec.Struct):
    """What one fold cost."""

    events: int
    customers: int
    interactions: int
    fold_s: float  # until the book was at the log's end
    whole_s: float  # until the contacts stood in the outbox too
    cpu_s: float  # of the mapper, from the first event until the contacts stood in the outbox
    peak_mb: float  # of the mapper, and of the process beside it where there is one
    book_mb: float

    @property
    def per_s(self) -> float:
        """Raw events a second of wall time."""
        return self.events / self.fold_s

    @property
    def per_core_s(self) -> float:
        """Raw events for each second of CPU."""
        return self.events / self.cpu_s


async def make(
    url: str, count: int, customers: int, on_stored: Callable[[int], None] = lambda _: None
) -> None:
    """A log."""
    await history.store(url, history.events(count, customers, random.Random(1)), on_stored)


def fold(url: str, events: int, folder: Path, on_look: Callable[[], None] = lambda: None) -> Fold:
    """Start a mapper with an empty book on a log whose first so many events were acked, and wait until its book has them."""
    asyncio.run(history.heard_up_to(url, events))
    shutil.rmtree(folder, ignore_errors=True)
    with machine.Service("mapper", folder, url) as mapper:
        while _said(mapper.log, "rebuilding_book") is None:
            mapper.alive()
            time.sleep(LOOK_S)
        started_s, beside_mb = mapper.cpu_s, 0.0
        while (said := _said(mapper.log, "book_rebuilt")) is None:
            mapper.alive()
            on_look()
            beside_mb = max(beside_mb, _beside_mb(mapper.pid))
            time.sleep(LOOK_S)
        cpu_s, peak_mb = max(mapper.cpu_s - started_s, machine.TICK_S), mapper.peak_mb + beside_mb
    book = folder / "mapper/book.sqlite"
    with closing(sqlite3.connect(f"file:{book}?mode=ro", uri=True)) as sql:
        customers, interactions = (
            int(sql.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
            for table in ("customer", "interaction")
        )
    book_mb = book.stat().st_size / 1024**2
    assert said["events"] == events
    fold_s = max(said["fold_s"], TENTH_S)
    return Fold(events, customers, interactions, fold_s, said["seconds"], cpu_s, peak_mb, book_mb)


def _beside_mb(pid: int) -> float:
    """The most that the process beside the mapper ever had; 0 where there is none just now."""
    with suppress(OSError):  # it has ended since
        return sum(machine.memory_mb(child, "VmHWM") for child in machine.children(pid))
    return 0.0


def _said(log: Path, event: str) -> dict | None:
    """The mapper's own line about it, once it is there."""
    lines = (
        json.loads(line)
        for line in log.read_text().splitlines()
        if line.startswith("{") and line.endswith("}")
    )
    return next((line for line in lines if line["event"] == event), None)


# -- ceilings -------------------------------------------------------------------------------------------------


def least_us(url: str, events: int, rows: int, folder: Path) -> float:
    """µs of CPU of reading one of so many events, and of writing one of so many rows, without us."""
    read_s = uvloop.run(consume(url, events))
    return (read_s / events + upsert(rows, ROW_BYTES, BATCH, folder / "rows.sqlite") / rows) * 1e6


async def consume(url: str, events: int) -> float:
    """nats-py reads so many of the log with the consumer the mapper reads it with: seconds of CPU."""
    connection = await nats.connect(url)
    done = asyncio.Event()
    left = events

    async def on_message(_message: Msg) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    cpu = time.process_time()
    await connection.jetstream().subscribe("", stream=MAPPER.stream, cb=on_message, ordered_consumer=True)
    await done.wait()
    took = time.process_time() - cpu
    await connection.close()
    return took


def upsert(rows: int, size: int, per_transaction: int, path: Path) -> float:
    """SQLite upserts so many rows of so many bytes into a new file, with the mapper's settings: seconds of CPU."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "cache_size = -32768"):
            sql.execute(f"PRAGMA {pragma}")
        sql.execute("CREATE TABLE row (key TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID")
        body = b"x" * size
        cpu = time.process_time()
        for start in range(0, rows, per_transaction):
            sql.execute("BEGIN IMMEDIATE")
            sql.executemany(
                "INSERT OR REPLACE INTO row VALUES (?, ?)",
                (
                    (f"WT{number * 2654435761 % 2**32:032x}", body)
                    for number in range(start, min(start + per_transaction, rows))
                ),
            )
            sql.execute("COMMIT")
        return time.process_time() - cpu


def measure(*, quick: bool) -> Found:
    """A figure and two curves: so many events of a tenth as many customers, and so many customers of as many events."""
    sizes, people = (
        ((500, 1_000), (10,)) if quick else ((1_000, 10_000, 100_000, 1_000_000), (100, 1_000, 10_000))
    )
    with machine.folder() as folder:
        with machine.broker(folder / "log") as broker:
            before_s = broker.cpu_s
            asyncio.run(make(broker.url, sizes[-1], sizes[-1] // 10))
            store_us = (broker.cpu_s - before_s) / sizes[-1] * 1e6
            event_bytes = machine.stored(broker.url, TWILIO).bytes / sizes[-1]
            *smaller, most = sizes
            by_events = [middle(broker.url, size, folder / "mapper") for size in smaller]
            # Before and after, because other work on the machine changes.
            before_us = least_us(broker.url, smaller[-1], most // 10, folder)
            by_events.append(fold(broker.url, most, folder / "mapper"))
            after_us = least_us(broker.url, smaller[-1], most // 10, folder)
        by_customers = []
        for number in people:
            with machine.broker(folder / f"log-{number}") as broker:
                asyncio.run(make(broker.url, most, number))
                by_customers.append(fold(broker.url, most, folder / "mapper"))
            shutil.rmtree(folder / f"log-{number}")
    found = figures(by_events, [*by_customers, by_events[-1]], (before_us + after_us) / 2)
    found.numbers |= {"rebuild.store_cpu_us": store_us, "rebuild.event_bytes": event_bytes}
    return found


def middle(url: str, events: int, folder: Path) -> Fold:
    """The median of three by CPU: of a short fold much of it is where the looks at it fall."""
    return sorted((fold(url, events, folder) for _ in range(3)), key=lambda one: one.cpu_s)[1]


def figures(by_events: list[Fold], by_customers: list[Fold], bare_us: float) -> Found:
    """What the folds say; held against the µs of CPU of reading a message and writing a row."""
    one = by_events[-1]
    flat = one.peak_mb - by_events[-2].peak_mb
    shown = [
        Figure(
            what=f"rebuild: {one.events:,} raw events of {one.customers:,} customers from the log into a fresh book",
            found=f"{one.fold_s:.0f} s: {one.per_s:,.0f}/s, {one.per_core_s:,.0f} for each second of CPU",
            target="≥ 10,000/s a core; a million in 3 min",
            ceiling=f"nats-py reads it, and SQLite upserts a row each: {1e6 / bare_us:,.0f} for each second of CPU",
            ratio=one.per_core_s * bare_us / 1e6,
            met=one.per_core_s >= 10_000 and one.fold_s * 1e6 / one.events < 180,
        ),
        Figure(
            what="rebuild, most memory",
            found=f"{one.peak_mb:.0f} MB; {flat:+.0f} MB for {one.events // by_events[-2].events} times as many events",
            target="< 500 MB",
            met=one.peak_mb < 500,
        ),
    ]
    says = (
        "Each point is a fold of its own; what else the machine did differs from one to the next. A fold can pass its ceiling: what"
        " a batch changes in a row is written once, where the ceiling writes a row for each event."
    )
    curves = [
        Curve(
            says=says,
            name="rebuild-events", title="rebuild: raw events", x="raw events", y="µs of CPU each",
            lines={"fold and contacts": [(one.events, one.cpu_s / one.events * 1e6) for one in by_events]},
        ),
        Curve(
            says="From 20,000 raw events on, a second process reads the log; its memory is in it.",
            name="rebuild-memory", title="rebuild: memory", x="raw events", y="MB at most",
            lines={"mapper, and who reads for it": [(one.events, one.peak_mb) for one in by_events]},
        ),
        Curve(
            name="rebuild-customers", title=f"rebuild: customers of {by_customers[-1].events:,} raw events", x="customers", y="µs of CPU for a raw event",
            lines={"fold and contacts": [(one.customers, one.cpu_s / one.events * 1e6) for one in by_customers]},
        ),
    ]  # fmt: skip
    numbers = {
        "rebuild.events": one.events,
        "rebuild.per_s": one.per_s,
        "rebuild.per_core_s": one.per_core_s,
        "rebuild.peak_mb": one.peak_mb,
        "rebuild.book_mb": one.book_mb,
        "rebuild.ratio": one.per_core_s * bare_us / 1e6,
    }
    return Found(figures=shown, curves=curves, numbers=numbers)
