"""The shelf: a mapper's books, each a file under `books`, and the link `book.sqlite` to the one in force.

SQLite keeps its -wal and -shm beside the file a link leads to, so a book never meets another's.  What is in force changes
by one rename; who is killed before it has the old book, after it the new one.
"""

import os
import re
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import structlog

FIRST = "first-book"  # of an installation that never replayed; a replay's id has no dash
BOOKS_MAX = 3  # beside the one in force; each is as large as that, and holds who the customers are
IDS = re.compile(r"[A-Za-z0-9]{1,64}")

log = structlog.get_logger()


class Shelf:
    """The books of one data directory."""

    def __init__(self, folder: Path) -> None:
        self.link = folder / "book.sqlite"
        self._books = folder / "books"

    def open(self) -> Path:
        """The book in force, which may be yet to be made.  One that stands where the link belongs is put on the shelf."""
        self._books.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.link.is_symlink():
            if self.link.exists():
                self._move_in()
            else:  # somebody took it away, or there never was one: made whole from the log, not from an old book
                self._delete(self.path(FIRST))
            self.put_in_force(FIRST)
        return self.in_force

    @property
    def in_force(self) -> Path:
        """The file of the book in force."""
        return self._books / self.link.readlink().name

    def path(self, name: str) -> Path:
        """The file of a book."""
        return self._books / f"{name}.sqlite"

    def put_in_force(self, name: str) -> None:
        """From here on this is the book in force, also after a crash."""
        new = self.link.with_name("book.sqlite.new")
        new.unlink(missing_ok=True)
        new.symlink_to(Path(self._books.name) / f"{name}.sqlite")
        new.replace(self.link)
        folder = os.open(self.link.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def drop(self, name: str) -> bool:
        """Delete a book, unless it is in force; whether it is gone."""
        path = self.path(name)
        if path == self.in_force:
            return False
        self._delete(path)
        return True

    def _delete(self, path: Path) -> None:
        for end in (
            "-wal",
            "-shm",
            "-journal",
            "",
        ):  # a book that is begun anew must not meet an old one's -wal
            path.with_name(path.name + end).unlink(missing_ok=True)

    def clear(self) -> int:
        """Delete every book but the one in force; returns how many."""
        others = [path.stem for path in self._books.glob("*.sqlite") if path != self.in_force]
        return sum(self.drop(name) for name in others)

    def make_room(self, but: str) -> list[str]:
        """Delete the oldest books beyond BOOKS_MAX, never the one in force nor `but`; returns their names."""
        kept = (self.in_force, self.path(but))
        others = [path for path in self._books.glob("*.sqlite") if path not in kept]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        gone = [path.stem for path in others[BOOKS_MAX - 1 :]]
        for name in gone:
            log.warning("book_dropped", book=name, why=f"{BOOKS_MAX} are kept beside the one in force")
            self.drop(name)
        return gone

    def _move_in(self) -> None:
        """The plain file of an older version, onto the shelf: one more name for it, and then the link takes its old one.

        Its -wal is folded in first.  Killed in between, it is done again: until the last rename the old name is in force.
        """
        with closing(sqlite3.connect(self.link, isolation_level=None)) as sql:
            sql.execute("PRAGMA journal_mode = DELETE")
        first = self.path(FIRST)
        with suppress(FileNotFoundError):
            first.unlink()
        first.hardlink_to(self.link)
        log.info("book_moved", to=f"{self._books.name}/{first.name}")
