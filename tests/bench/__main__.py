"""`make bench`: measure, print one table, and with `--write` the page and its history.

`--quick` measures next to nothing, to show that all of it works; `--only NAME` leaves out the others, whose last figures stay
on the page; `--json` prints what was found as JSON.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench import hot, ingest, live, machine, page, poller, rebuild, sink, tracing, whole
from tests.bench.figures import Found, table

MEASUREMENTS: dict[str, Callable[..., Found]] = {
    "ingest": ingest.measure,
    "mapper": live.measure,
    "rebuild": rebuild.measure,
    "sink": sink.measure,
    "poller": poller.measure,
    "whole": whole.measure,
    "tracing": tracing.measure,
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="make bench", description="How fast, and how near the limit.")
    parser.add_argument("--quick", action="store_true", help="next to nothing of each: shows that it works")
    parser.add_argument("--only", action="append", choices=[*MEASUREMENTS], help="this one; may be repeated")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    docs = machine.ROOT / "docs"
    parser.add_argument(
        "--write", type=Path, nargs="?", const=docs, metavar="FOLDER",
        help="write performance.md, its pictures and its history there; docs if no folder is given",
    )  # fmt: skip
    asked = parser.parse_args()
    if asked.quick and asked.write == docs:
        parser.error("what --quick finds is no figure: leave one of the two out")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # children are ended, folders removed
    found: dict[str, Found] = {}
    columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        names = asked.only or [*MEASUREMENTS]
        bar = progress.add_task("", total=len(names))
        for name in names:
            progress.update(bar, description=name)
            found[name] = MEASUREMENTS[name](quick=asked.quick)
            run = page.Run(
                at=page.now(), machine=page.this_machine(),
                sources=hot.sources(machine.ROOT, name), numbers=found[name].numbers,
            )  # fmt: skip
            if asked.write:  # after each: what the next one breaks off is kept
                history = page.History.read(asked.write / "performance.json")
                history.add(name, found[name], run)
                page.write(history, asked.write)
            progress.advance(bar)
    if asked.json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    else:
        Console().print(Markdown(table([figure for one in found.values() for figure in one.figures])))


if __name__ == "__main__":
    main()
