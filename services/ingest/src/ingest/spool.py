"""The spool: what the log cannot take now, in a SQLite file that belongs to this process alone.

Each process takes the first `spool-N.sqlite` that nobody holds, by SQLite's own lock, which the kernel releases
however the process ends.  Other files nobody holds were left by killed ones: they are drained too, first.
"""

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import structlog

from shared.message import Message
from shared.publish import ATOMIC_MAX

FILES_MAX = 100  # processes on one directory
GROUP_BYTES_MAX = 4 * 1024**2  # drained at once, beyond the first row
PROBE_BYTES = 64 * 1024
SHRINK_FROM_BYTES = 16 * 1024**2  # an emptied file smaller than this is not worth rewriting

_NOT_OURS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_WHAT = {sqlite3.SQLITE_FULL: "the spool or its disk is full", sqlite3.SQLITE_READONLY: "it is read-only"}

T = TypeVar("T")
log = structlog.get_logger()


class SpoolError(Exception):
    """Nothing was kept: the spool is full, or its disk is, or cannot be written.  The text says which."""


class Group(NamedTuple):
    """The oldest messages of a file, up to and including its row `last`."""

    file: "_File"
    last: int
    messages: list[Message]


class Spool:
    """First in, first out, on disk when a call returns.  All work is done in one thread beside the event loop."""

    def __init__(self, folder: Path, *, bytes_max: int) -> None:
        """Take a file, and those left behind; where that fails, `why` says so and each append tries again."""
        self.why = ""  # it cannot keep anything just now; empty when it can
        self.messages = 0
        self.bytes = 0
        self.bytes_max = bytes_max
        self._folder = folder
        self._files: list[_File] = []  # ours first
        self._thread = ThreadPoolExecutor(1, "spool")
        with suppress(SpoolError):
            self._guarded(self._open)

    async def append(self, messages: Sequence[Message]) -> None:
        """Return when all are on disk, behind what is there.  Raises SpoolError: then none is."""
        await self._run(lambda: self._own().append(messages))

    async def oldest(self) -> Group | None:
        """What is to be published next; None when nothing is left."""
        return await self._run(self._oldest)

    async def forget(self, group: Group) -> None:
        """These are in the log.  What is not forgotten in time is published again, which changes nothing."""
        await self._run(lambda: self._forget(group))

    async def wiped(self) -> bool:
        """Leave nothing on disk of what was here, if nothing is here any more; whether it is so."""
        return await self._run(self._wipe)

    def _wipe(self) -> bool:
        if any(file.messages for file in self._files):
            return False
        for file in self._files:
            file.wipe()
        return True

    async def usable(self) -> bool:
        """Whether it can write to its disk, found out by doing so."""
        with suppress(SpoolError):
            await self._run(lambda: self._own().probe())
        return not self.why

    async def close(self) -> None:
        """Close the files; what is in them stays."""
        with suppress(SpoolError):
            await self._run(self._close)
        self._thread.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            result = work()
        except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
            why = f"{self._folder}: {_what(error)}"
            if not self.why:
                log.error("spool_unusable", why=why, remedy="make room, or make the folder writable")
            self.why = why
            raise SpoolError(why) from error
        finally:
            self.messages = sum(file.messages for file in self._files)
            self.bytes = sum(file.bytes for file in self._files)
        self.why = ""
        return result

    def _close(self) -> None:
        for file in self._files:
            file.close()

    def _own(self) -> "_File":
        if not self._files:
            self._open()
        return self._files[0]

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        paths = (self._folder / f"spool-{number}.sqlite" for number in range(1, FILES_MAX + 1))
        own = next(_free(paths, self.bytes_max), None)
        if own is None:
            raise OSError(f"{FILES_MAX} files, and each is held by another process or unreadable")
        self._files.append(own)
        left = (path for path in sorted(self._folder.glob("spool-*.sqlite")) if path != own.path)
        for file in _free(left, self.bytes_max):
            if file.messages:
                log.info("spool_adopted", file=file.path.name, messages=file.messages)
                self._files.append(file)
            else:
                file.close()

    def _oldest(self) -> Group | None:
        for file in itertools.chain(self._files[1:], self._files[:1]):
            if file.messages:
                return file.oldest()
        return None

    def _forget(self, group: Group) -> None:
        group.file.forget(group.last)
        if not group.file.messages and group.file is not self._files[0]:
            self._files.remove(group.file)
            group.file.close()


class _File:
    """One SQLite file, locked for as long as it is open.  A row is a group of messages: one row, one fsync."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self.path = path
        self._sql = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            path.chmod(0o600)  # it holds what Twilio said of customers
            self._pragma("locking_mode = EXCLUSIVE")
            self._pragma("journal_mode = WAL")
            self._pragma("synchronous = FULL")
            self._pragma("temp_store = MEMORY")
            self._pragma("secure_delete = ON")  # what is forgotten is overwritten
            self._page = self._pragma("page_size")
            self._pragma(f"max_page_count = {max(bytes_max // self._page, 8)}")
            self._sql.execute("BEGIN IMMEDIATE")  # takes the lock, and EXCLUSIVE keeps it
            self._sql.execute(
                "CREATE TABLE IF NOT EXISTS flight (number INTEGER PRIMARY KEY, count INTEGER NOT NULL, messages BLOB NOT NULL)"
            )
            self._sql.execute("COMMIT")
            (self.messages,) = self._sql.execute("SELECT coalesce(sum(count), 0) FROM flight").fetchone()
            self._measure()
        except BaseException:
            self._sql.close()
            raise

    def close(self) -> None:
        self._sql.close()

    def append(self, messages: Sequence[Message]) -> None:
        packed = msgspec.msgpack.encode(messages)
        self._sql.execute("INSERT INTO flight (count, messages) VALUES (?, ?)", (len(messages), packed))
        self.messages += len(messages)
        self._measure()

    def oldest(self) -> Group:
        taken: list[Message] = []
        last, size = 0, 0
        rows = self._sql.execute("SELECT number, messages FROM flight ORDER BY number")
        for number, packed in rows:
            flight = msgspec.msgpack.decode(packed, type=list[Message])
            size += len(packed)
            if taken and (len(taken) + len(flight) > ATOMIC_MAX or size > GROUP_BYTES_MAX):
                break
            taken += flight
            last = number
        rows.close()
        return Group(self, last, taken)

    def forget(self, last: int) -> None:
        (gone,) = self._sql.execute(
            "SELECT coalesce(sum(count), 0) FROM flight WHERE number <= ?", (last,)
        ).fetchone()
        self._sql.execute("DELETE FROM flight WHERE number <= ?", (last,))
        self.messages -= gone
        if not self.messages and self._pragma("page_count") * self._page > SHRINK_FROM_BYTES:
            with suppress(sqlite3.Error):  # it is only room
                self._sql.execute("VACUUM")
                self._pragma("wal_checkpoint(TRUNCATE)")
        self._measure()

    def wipe(self) -> None:
        """Write the file anew: a page that was split or moved may hold what is deleted."""
        self._sql.execute("VACUUM")
        self._pragma("wal_checkpoint(TRUNCATE)")

    def probe(self) -> None:
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            self._sql.execute("INSERT INTO flight (count, messages) VALUES (0, zeroblob(?))", (PROBE_BYTES,))
            self._sql.execute("DELETE FROM flight WHERE number = last_insert_rowid()")
            self._sql.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite has rolled back by itself where the disk failed
                self._sql.execute("ROLLBACK")
            raise

    def _measure(self) -> None:
        self.bytes = (self._pragma("page_count") - self._pragma("freelist_count")) * self._page

    def _pragma(self, text: str) -> int:
        row = self._sql.execute(f"PRAGMA {text}").fetchone()
        return row[0] if row and isinstance(row[0], int) else 0


def _free(paths: Iterable[Path], bytes_max: int) -> Iterator[_File]:
    """Those of the files that can be taken, each opened and locked as it is asked for."""
    for path in paths:
        try:
            file = _File(path, bytes_max)
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extension
            if code not in _NOT_OURS:
                raise
            if code != sqlite3.SQLITE_BUSY:
                log.error(
                    "spool_unreadable", file=str(path), remedy="keep it: sqlite3's .recover may read it"
                )
        else:
            yield file


def _what(error: Exception) -> str:
    """An error in words that hold no message."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return _WHAT.get(code) or (
        str(error) if isinstance(error, OSError | sqlite3.Error) else type(error).__name__
    )
