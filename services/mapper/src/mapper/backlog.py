"""The backlog of a book: what a replay says, brought into the outbox bit by bit, so that what happens now never waits.

Of one contact it keeps its order: before anything else is said of a contact, what its backlog says goes into the outbox.
"""

import sqlite3
from collections.abc import Iterable

BRING_MAX = 500  # commands brought into the outbox at once: one atomic batch

_INTO = "INSERT INTO outbox (message) SELECT message FROM backlog WHERE number IN"


class Backlog:
    """A table of a book; each change is part of the book's transaction."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql

    def __len__(self) -> int:
        return int(self._sql.execute("SELECT COUNT(*) FROM backlog").fetchone()[0])

    def __bool__(self) -> bool:
        return self._sql.execute("SELECT 1 FROM backlog LIMIT 1").fetchone() is not None

    def fill(self, *queries: str, since: str) -> int:
        """In the place of what stands there, what these select: (ext_id, message), in order.  Returns how many."""
        self._sql.execute("DELETE FROM backlog")
        for query in queries:
            self._sql.execute(f"INSERT INTO backlog (ext_id, message) {query}", {"since": since})  # of ours
        return len(self)

    def hurry(self, ext_ids: Iterable[str]) -> None:
        """What is to be said of these contacts goes into the outbox now: more is said of them."""
        if not self:
            return
        for ext_id in set(ext_ids):
            rows = self._sql.execute("SELECT number FROM backlog WHERE ext_id = ? ORDER BY number", (ext_id,))
            self._bring([number for (number,) in rows])

    def bring_on(self) -> bool:
        """The next BRING_MAX into the outbox; returns whether there were any."""
        rows = self._sql.execute("SELECT number FROM backlog ORDER BY number LIMIT ?", (BRING_MAX,))
        numbers = [number for (number,) in rows]
        self._bring(numbers)
        return bool(numbers)

    def _bring(self, numbers: list[int]) -> None:
        for number in numbers:
            self._sql.execute(f"{_INTO} (?)", (number,))
            self._sql.execute("DELETE FROM backlog WHERE number = ?", (number,))
