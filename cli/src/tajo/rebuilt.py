"""What a rebuild into another account shall tell, and how far it is: one SQLite file in the rebuild's folder.

Contacts and events stand here once they follow from the whole log, each with whether it was said to the folder's own
stream BREVO.  What was said is what Brevo shall hold in the end.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from shared.command import ContactUpsert, EventTrack
from shared.event import epoch_ms
from shared.replay import Expected
from tajo.drift import written

ROWS_MAX = 500  # read at once: as many as one atomic batch has messages


class State(Struct, kw_only=True):
    """How far a rebuild is.  What it begins with does not change."""

    account: str  # tells one Brevo account from another
    mapping: str  # hash
    sequence: int  # of TWILIO: what it includes
    began_ms: int  # epoch milliseconds; how old an event is counts from here
    folded: bool = False  # contacts and events are all here
    looked: bool = False  # the account was seen to hold nothing that ours would meet
    told: bool = False  # all that was to be said has ended
    dead: int = 0  # of it, what Brevo refused for good
    seconds: float = 0.0  # spent on it, over all runs
    calls: int = 0  # to Brevo, over all runs


class Rebuilt:
    """The file.  Each call is one transaction, on disk when it returns (WAL, synchronous FULL)."""

    def __init__(self, path: Path) -> None:
        """Open or create it."""
        self._sql = sqlite3.connect(path, isolation_level=None)
        path.chmod(0o600)  # it holds who the customers are
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            self._sql.execute(f"PRAGMA {pragma}")
        for statement in (
            "CREATE TABLE IF NOT EXISTS state (one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB NOT NULL)",
            """CREATE TABLE IF NOT EXISTS contact (ext_id TEXT PRIMARY KEY, email TEXT NOT NULL, phone TEXT NOT NULL,
                said INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID""",
            "CREATE INDEX IF NOT EXISTS contact_email ON contact (email) WHERE email != ''",
            "CREATE INDEX IF NOT EXISTS contact_phone ON contact (phone) WHERE phone != ''",
            """CREATE TABLE IF NOT EXISTS event (id TEXT PRIMARY KEY, ext_id TEXT NOT NULL, ms INTEGER NOT NULL,
                said INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID""",
            "CREATE INDEX IF NOT EXISTS event_whose ON event (ext_id)",
            "CREATE INDEX IF NOT EXISTS event_when ON event (said, ms, id)",
        ):
            self._sql.execute(statement)
        self._encode = msgspec.json.encode
        self._contact = msgspec.json.Decoder(ContactUpsert)
        self._event = msgspec.json.Decoder(EventTrack)

    def close(self) -> None:
        """Close the file."""
        self._sql.close()

    @property
    def state(self) -> State | None:
        """How far it is; None where nothing has begun."""
        row = self._sql.execute("SELECT body FROM state").fetchone()
        return msgspec.json.decode(row[0], type=State) if row else None

    def keep(self, state: State) -> None:
        """It is so far."""
        self._sql.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (self._encode(state),))

    # -- what shall be told -------------------------------------------------------------------------------------

    def put(self, contacts: Iterable[ContactUpsert], events: Iterable[EventTrack]) -> None:
        """Add these; a contact that is there becomes this one, an event that is there stays."""
        self._sql.execute("BEGIN IMMEDIATE")
        self._sql.executemany(
            "INSERT OR REPLACE INTO contact VALUES (?, ?, ?, 0, ?)",
            (
                (
                    one.ext_id,
                    (one.email or "").lower(),
                    written("SMS", one.attributes.get("SMS")),
                    self._encode(one),
                )
                for one in contacts
            ),
        )
        self._sql.executemany(
            "INSERT OR IGNORE INTO event VALUES (?, ?, ?, 0, ?)",
            ((one.id, one.ext_id, epoch_ms(one.time), self._encode(one)) for one in events),
        )
        self._sql.execute("COMMIT")

    def is_ours(self, email: str, phone: str) -> bool:
        """Whether a customer has this email or phone, as digits."""
        sql = """SELECT EXISTS (SELECT 1 FROM contact WHERE email != '' AND email = ?)
            OR EXISTS (SELECT 1 FROM contact WHERE phone != '' AND phone = ?)"""
        return bool(self._sql.execute(sql, (email.lower(), phone)).fetchone()[0])

    def contacts_unsaid(self) -> Sequence[tuple[ContactUpsert, bool]]:
        """The next contacts to be said, each with whether no other has its email or phone."""
        sql = """SELECT body,
            (SELECT COUNT(*) FROM contact AS other WHERE other.email != '' AND other.email = contact.email) < 2
            AND (SELECT COUNT(*) FROM contact AS other WHERE other.phone != '' AND other.phone = contact.phone) < 2
            FROM contact WHERE said = 0 ORDER BY ext_id LIMIT ?"""
        rows = self._sql.execute(sql, (ROWS_MAX,)).fetchall()
        return [(self._contact.decode(body), bool(alone)) for body, alone in rows]

    def events_unsaid(self, since_ms: int) -> Sequence[EventTrack]:
        """The next events to be said, in the order they happened, of those that happened then or later."""
        sql = "SELECT body FROM event WHERE said = 0 AND ms >= ? ORDER BY ms, id LIMIT ?"
        return [self._event.decode(body) for (body,) in self._sql.execute(sql, (since_ms, ROWS_MAX))]

    def events_before(self, ms: int) -> int:
        """How many happened before then."""
        return int(self._sql.execute("SELECT COUNT(*) FROM event WHERE ms < ?", (ms,)).fetchone()[0])

    def said_contacts(self, ext_ids: Iterable[str]) -> None:
        """These stand in BREVO."""
        self._said("contact", "ext_id", ext_ids)

    def said_events(self, ids: Iterable[str]) -> None:
        """These stand in BREVO."""
        self._said("event", "id", ids)

    def _said(self, table: str, key: str, values: Iterable[str]) -> None:
        self._sql.execute("BEGIN IMMEDIATE")
        self._sql.executemany(f"UPDATE {table} SET said = 1 WHERE {key} = ?", ((one,) for one in values))  # noqa: S608
        self._sql.execute("COMMIT")

    # -- what Brevo shall hold ----------------------------------------------------------------------------------

    def counts(self) -> tuple[int, int, int]:
        """Contacts; events said; events that are not."""
        return (
            self._count("SELECT COUNT(*) FROM contact"),
            self._count("SELECT COUNT(*) FROM event WHERE said = 1"),
            self._count("SELECT COUNT(*) FROM event WHERE said = 0"),
        )

    def names(self) -> list[str]:
        """What the events said are called."""
        sql = "SELECT DISTINCT body ->> '$.name' FROM event WHERE said = 1 ORDER BY 1"
        return [name for (name,) in self._sql.execute(sql)]

    def times(self) -> tuple[int, int]:
        """When the first and the last event said happened (epoch milliseconds); zeros where there is none."""
        first, last = self._sql.execute("SELECT MIN(ms), MAX(ms) FROM event WHERE said = 1").fetchone()
        return first or 0, last or 0

    def expected(self) -> Iterator[Expected]:
        """What Brevo shall hold of each customer, in the order of their ext_ids."""
        for (body,) in self._sql.execute("SELECT body FROM contact ORDER BY ext_id"):
            contact = self._contact.decode(body)
            rows = self._sql.execute(  # with + by its customer, else SQLite looks at all that were said, for each of them
                "SELECT body FROM event WHERE ext_id = ? AND +said = 1", (contact.ext_id,)
            )
            events = (self._event.decode(row) for (row,) in rows)
            yield Expected(
                ext_id=contact.ext_id,
                email=contact.email,
                attributes=contact.attributes,
                list_ids=contact.list_ids,
                events=tuple(sorted((one.id, one.name, one.time) for one in events)),
            )

    def _count(self, sql: str) -> int:
        return int(self._sql.execute(sql).fetchone()[0])
