"""How many interactions, customers and agents the book holds: counted beside the work, never in its way.

SQLite counts by walking an index, some tens of ns a row.  So it is done in a thread, over a connection of its own
that only reads, and a hundred times as long as it took is waited until it is done again: it costs a hundredth of a
core at most, however large the book.
"""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import structlog

from mapper.book import Book, Size

COUNT_S = 5.0  # between two counts of a small book: a heartbeat's
SHARE = 100  # of the time that counting took, until it is done again

log = structlog.get_logger()


class Tally:
    """The last count of a book's file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size: Size | None = None
        self.failed = False  # it could not be counted when that was tried last

    async def count(self) -> None:
        """Count again and again.  Ends when cancelled."""
        while True:
            began = time.monotonic()
            try:
                self.size = await asyncio.to_thread(_size, self._path)
                self.failed = False
            except sqlite3.Error as error:
                self.failed = True
                log.debug("not_counted", error=type(error).__name__)
            await asyncio.sleep(max(COUNT_S, SHARE * (time.monotonic() - began)))


def _size(path: Path) -> Size:
    with closing(Book(path, read_only=True)) as book:
        return book.size()
