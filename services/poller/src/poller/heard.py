"""What is in the log already: the ids of its last 31 days, in SQLite, fed from the log itself.

Only a filter, so that what a webhook told is not stored again; what slips through it the book knows.  The ids of a
batch and the sequence they lead up to are one transaction, so a crash reads them again; a lost file is made anew.
"""

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from faststream.nats import NatsBroker
from nats.aio.msg import Msg

from shared import bus
from shared.past import last_sequence, past
from shared.publish import NotPublishedError
from shared.topology import TWILIO

KEPT = timedelta(days=31)  # Twilio tells of 30; https://www.twilio.com/docs/taskrouter/api/event
FORGET_S = 3600.0  # between two clearances


Origin = Literal["webhook", "poller"]


class Stored(NamedTuple):
    """An event of the log: its id, the epoch second it was stored at, and whether the poller did."""

    id: str
    at_s: int
    polled: bool


class Heard:
    """One file, some 60 bytes an event."""

    def __init__(self, path: Path | None) -> None:
        """Open or create the file; None keeps it in memory."""
        self._sql = sqlite3.connect(path or ":memory:", isolation_level=None)
        if path:
            path.chmod(0o600)  # as all that a service keeps
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute(
            "CREATE TABLE IF NOT EXISTS heard"
            " (id BLOB PRIMARY KEY, stored_s INTEGER NOT NULL, polled INTEGER NOT NULL) WITHOUT ROWID"
        )
        self._sql.execute("CREATE TABLE IF NOT EXISTS includes (sequence INTEGER NOT NULL)")
        row = self._sql.execute("SELECT sequence FROM includes").fetchone()
        if row is None:
            self._sql.execute("INSERT INTO includes VALUES (0)")
        self.sequence: int = row[0] if row else 0
        """Of TWILIO all up to here is included."""
        self._cleared = float("-inf")
        self._reading = asyncio.Lock()

    def close(self) -> None:
        """Close the file."""
        self._sql.close()

    def origin(self, ids: Iterable[str]) -> Origin | None:
        """How it came into the log that has one of these ids; None where none is there."""
        for id_ in ids:
            row = self._sql.execute("SELECT polled FROM heard WHERE id = ?", (_key(id_),)).fetchone()
            if row:
                return "poller" if row[0] else "webhook"
        return None

    def add(self, stored: Iterable[Stored], sequence: int) -> None:
        """These are in the log, which is included up to `sequence`."""
        self._sql.execute("BEGIN IMMEDIATE")
        self._sql.executemany(
            "INSERT OR IGNORE INTO heard VALUES (?, ?, ?)",
            [(_key(one.id), one.at_s, one.polled) for one in stored],
        )
        self._sql.execute("UPDATE includes SET sequence = ?", (sequence,))
        self._sql.execute("COMMIT")
        self.sequence = sequence

    def forget(self, before_s: int) -> None:
        """Those stored before then are gone from Twilio too."""
        self._sql.execute("DELETE FROM heard WHERE stored_s < ?", (before_s,))

    def start_over(self) -> None:
        """The log is another one."""
        self._sql.execute("BEGIN IMMEDIATE")
        self._sql.execute("DELETE FROM heard")
        self._sql.execute("UPDATE includes SET sequence = 0")
        self._sql.execute("COMMIT")
        self.sequence = 0

    async def catch_up(self, broker: NatsBroker) -> None:
        """Include all the log holds now.  Raises NotPublishedError without a broker, and nats' errors."""
        async with self._reading:
            await self._catch_up(broker)

    async def _catch_up(self, broker: NatsBroker) -> None:
        connection = bus.client(broker)
        if connection is None:
            raise NotPublishedError("no connection to NATS")
        to = await last_sequence(connection, TWILIO.name)
        if to < self.sequence:
            self.start_over()
        oldest = datetime.now(UTC) - KEPT
        since = oldest if not self.sequence else None
        async for messages in past(
            broker, TWILIO.name, after=self.sequence, to=to, since=since, headers_only=True
        ):
            self.add(map(_stored, messages), messages[-1].metadata.sequence.stream)
        if time.monotonic() - self._cleared > FORGET_S:
            self.forget(int(oldest.timestamp()))
            self._cleared = time.monotonic()


def _stored(message: Msg) -> Stored:
    headers = message.headers or {}
    polled = headers.get("ce-source", "").startswith("/rest/")
    return Stored(headers.get("ce-id", ""), int(message.metadata.timestamp.timestamp()), polled)


def _key(id_: str) -> bytes:
    return hashlib.blake2b(id_.encode(), digest_size=16).digest()
