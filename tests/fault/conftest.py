"""What the fault tests found, as a page for people."""

import datetime as dt
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tajo import nats_server

HEAD = """# Reliability

What `make fault` found when it last ran: real processes, a real broker with every acknowledgement on disk, and Brevo as the
sandbox on the wire.  Written by it; do not edit.
"""


@dataclass
class Section:
    """A text and a table."""

    text: str
    columns: Sequence[str]
    rows: list[Sequence[object]] = field(default_factory=list)

    def shown(self, title: str) -> str:
        """In Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
        return f"## {title}\n\n{self.text.strip()}\n\n{table}\n"


@dataclass
class Reliability:
    """The sections of the page, in the order the tests ran."""

    found: dict[str, Section] = field(default_factory=dict)

    @property
    def sections(self) -> list[str]:
        """As they stand on the page."""
        return [section.shown(title) for title, section in self.found.items()]

    def add(self, title: str, text: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A section with a table."""
        self.found[title] = Section(text, columns, list(rows))

    def row(self, title: str, text: str, columns: Sequence[str], cells: Sequence[object]) -> None:
        """One more line of a section that several tests make."""
        self.found.setdefault(title, Section(text, columns)).rows.append(cells)


def page(sections: Sequence[str], ran_on: str) -> str:
    """The document, in Markdown."""
    return "\n".join([HEAD, f"{ran_on}\n", *sections])


def this_machine() -> str:
    """When and on what."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    said = subprocess.run(
        [str(nats_server.binary()), "--version"], capture_output=True, text=True, check=True
    )
    version = said.stdout.strip().removeprefix("nats-server: v")
    return (
        f"{dt.datetime.now(dt.UTC).date()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"{platform.system()}, Python {platform.python_version()}, nats-server {version}."
    )


@pytest.fixture(scope="session")
def reliability(pytestconfig: pytest.Config) -> Iterator[Reliability]:
    """`reliability.add(title, text, columns, rows)`; `--report FILE` writes what all added."""
    found = Reliability()
    yield found
    if path := pytestconfig.getoption("--report"):
        Path(path).write_text(page(found.sections, this_machine()), encoding="utf-8")
