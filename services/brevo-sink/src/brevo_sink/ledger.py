"""The ledger: what became of each command, in SQLite.  Event ids are kept for ever, because replay relies on it.

It includes RECEIPTS up to a sequence; what was said after that is folded in before anything is sent.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlite_utils

from brevo_sink.fold import Change, Erased, Relinked, State, Unsent, Wrote
from shared.receipt import Told

_NUMBER: dict[State, int] = {"sending": 1, "in_doubt": 2, "delivered": 3, "rejected": 4, "unresolved": 5}
_STATE: dict[int, State] = {number: state for state, number in _NUMBER.items()}

_WRITE = """INSERT INTO event VALUES (?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, batch = excluded.batch"""

_BEFORE_POSITIONS = {  # tables of a file that knew only how a contact is called now, and its last erasure
    "alias": "INSERT OR IGNORE INTO renamed SELECT ext_id, 0, name FROM alias",
    "gone": "INSERT OR IGNORE INTO erased SELECT ext_id, position FROM gone",
}

COMPACT = 1  # user_version of a file whose ended events name no call
FREE_MAX = 0.25  # of the pages, before they are given back
FREE_FROM = 2000  # pages, 8 MB; below it is not worth the time

END = 2**62  # a position that none comes after
IN_MAX = 5000  # values in one IN (...); SQLite takes 32,766


class Ledger:
    """One file; each call is one transaction, on disk when it returns (WAL, synchronous FULL)."""

    def __init__(self, path: Path | None) -> None:
        """Open or create the file; None keeps it in memory."""
        self._sql = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._db = sqlite_utils.Database(self._sql)
        if path:
            path.chmod(0o600)  # it holds whom Brevo was told of, and how others called them
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            self._sql.execute(f"PRAGMA {pragma}")
        self._sql.execute(
            "CREATE TABLE IF NOT EXISTS event (id TEXT PRIMARY KEY, state INTEGER NOT NULL, batch TEXT NOT NULL) WITHOUT ROWID"
        )
        self._db.table("contact").create(
            {"ext_id": str, "version": int, "position": int, "mapping": str}, pk="ext_id", if_not_exists=True
        )
        if "identifiers" not in self._db.table("contact").columns_dict:  # a file from before it was kept
            self._db.table("contact").add_column("identifiers", str, not_null_default="")
        self._db.table("foreign_name").create({"ext_id": str, "name": str}, pk="ext_id", if_not_exists=True)
        for definition in (
            "renamed (was TEXT, position INTEGER, ext_id TEXT NOT NULL, PRIMARY KEY (was, position)) WITHOUT ROWID",
            "erased (ext_id TEXT, position INTEGER, PRIMARY KEY (ext_id, position)) WITHOUT ROWID",
        ):
            self._sql.execute(f"CREATE TABLE IF NOT EXISTS {definition}")
        self._sql.execute("CREATE INDEX IF NOT EXISTS renamed_to ON renamed (ext_id, position)")
        for old, copied in _BEFORE_POSITIONS.items():
            if old in self._db.table_names():
                self._sql.execute(copied)
                self._sql.execute(f"DROP TABLE {old}")
        self._sql.execute("CREATE INDEX IF NOT EXISTS event_open ON event (state) WHERE state <= 2")
        self._sql.execute("CREATE TABLE IF NOT EXISTS erasure (id TEXT PRIMARY KEY)")
        self._sql.execute("CREATE TABLE IF NOT EXISTS includes (sequence INTEGER NOT NULL)")
        row = self._sql.execute("SELECT max(sequence) FROM includes").fetchone()
        if row[0] is None:
            self._sql.execute("INSERT INTO includes VALUES (0)")
        self._compact()
        self.sequence: int = row[0] or 0
        """Of RECEIPTS all up to here is included; on disk with the next transaction."""

    def _compact(self) -> None:
        """Give back what nothing needs.  Which call an event went in is asked only until it has ended.

        A crash in between leaves a file that is as good, and compacted at the next start.
        """
        version, pages, free = (
            int(self._sql.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("user_version", "page_count", "freelist_count")
        )
        if version < COMPACT:
            ended = "UPDATE event SET batch = '' WHERE state > ? AND batch != ''"
            self._sql.execute(ended, (_NUMBER["in_doubt"],))
        if (version < COMPACT or free > FREE_MAX * pages) and pages > FREE_FROM:
            self._sql.execute("VACUUM")
        self._sql.execute(f"PRAGMA user_version = {COMPACT}")

    def close(self) -> None:
        """Close the file."""
        with self._transaction():
            pass
        self._db.close()

    def said(self, sequence: int) -> None:
        """We said a receipt, and it got this sequence.  All we said before stands in the ledger already."""
        self.sequence = max(self.sequence, sequence)

    def start_over(self) -> None:
        """RECEIPTS is another than the one that was read: include it from its beginning."""
        self.sequence = 0

    def include(self, changes: Iterable[tuple[int, Change | None]], *, to: int = 0) -> None:
        """Fold what receipts changed, each with its sequence, in their order.  What is included already is passed over.

        `to` says that RECEIPTS holds nothing more up to there.
        """
        with self._transaction():
            for sequence, one in changes:
                if sequence > self.sequence:
                    self._change(one)
                    self.sequence = sequence
            self.sequence = max(self.sequence, to)

    def doubt(self) -> int:
        """Nobody is sending: what is `sending` is `in_doubt` from here on.  Returns how many."""
        with self._transaction():
            return self._sql.execute(
                "UPDATE event SET state = ? WHERE state = ?", (_NUMBER["in_doubt"], _NUMBER["sending"])
            ).rowcount

    def states(self, ids: Sequence[str]) -> dict[str, State]:
        """What is known of these events."""
        known: dict[str, State] = {}
        for start in range(0, len(ids), IN_MAX):
            chunk = ids[start : start + IN_MAX]
            marks = ", ".join("?" * len(chunk))
            rows = self._sql.execute(f"SELECT id, state FROM event WHERE id IN ({marks})", chunk)  # noqa: S608
            known.update((id_, _STATE[number]) for id_, number in rows)
        return known

    def write(self, ids: Iterable[str], state: State, batch: str = "") -> None:
        """These events are in this state."""
        with self._transaction():
            self._sql.executemany(_WRITE, _rows(ids, state, batch))

    def forget(self, ids: Iterable[str]) -> None:
        """Nothing took effect: these events are as if never sent."""
        with self._transaction():
            self._sql.executemany("DELETE FROM event WHERE id = ?", [(id_,) for id_ in ids])

    # -- forgetting somebody ------------------------------------------------------------------------------------

    def ids(self, after: str) -> list[str]:
        """The next IN_MAX events by id."""
        sql = "SELECT id FROM event WHERE id > ? ORDER BY id LIMIT ?"
        return [id_ for (id_,) in self._sql.execute(sql, (after, IN_MAX))]

    def deletions(self) -> list[str]:
        """The ids of all deletions that ended."""
        return self._ids_like("tajo-%/delete/%")

    def relinks(self) -> list[str]:
        """The ids of all relinks that ended: "<was>/<ext_id>/<version>"."""
        return self._ids_like("tajo-%/tajo-%/%")

    def _ids_like(self, pattern: str) -> list[str]:
        sql = "SELECT id FROM event WHERE id >= 'tajo-' AND id < 'tajo.' AND id LIKE ?"
        return [id_ for (id_,) in self._sql.execute(sql, (pattern,))]

    def names(self) -> set[str]:
        """All that contacts are and were called."""
        sql = """SELECT ext_id FROM contact UNION SELECT ext_id FROM foreign_name UNION SELECT was FROM renamed
            UNION SELECT ext_id FROM renamed UNION SELECT ext_id FROM erased"""
        return {name for (name,) in self._sql.execute(sql)}

    def forgot(self, erasure: str) -> bool:
        """Whether that person is not in here any more."""
        return bool(self._sql.execute("SELECT 1 FROM erasure WHERE id = ?", (erasure,)).fetchone())

    def forget_person(self, erasure: str, ids: Iterable[str], names: Iterable[str], *, position: int) -> None:
        """These events, and these contacts as told up to a position of BREVO, were never there; the file is written anew."""
        with self._transaction():
            self._sql.executemany("DELETE FROM event WHERE id = ?", ((id_,) for id_ in ids))
            for name in names:
                told = self.delivered(name)
                if told is None or told[1] <= position:
                    self._sql.execute("DELETE FROM contact WHERE ext_id = ?", (name,))
                    self._sql.execute("DELETE FROM foreign_name WHERE ext_id = ?", (name,))
                touched = "DELETE FROM renamed WHERE (was = ? OR ext_id = ?) AND position <= ?"
                self._sql.execute(touched, (name, name, position))
                self._sql.execute("DELETE FROM erased WHERE ext_id = ? AND position <= ?", (name, position))
            self._sql.execute("INSERT OR IGNORE INTO erasure VALUES (?)", (erasure,))
        # A page that was split or moved may hold what is deleted.
        self._sql.execute("VACUUM")
        self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- contacts -----------------------------------------------------------------------------------------------

    def has(self, ext_id: str) -> bool:
        """Whether Brevo was told of this contact."""
        return self.delivered(ext_id) is not None

    def delivered(self, ext_id: str) -> tuple[int, int, str] | None:
        """Version, position and mapping of the contact as last delivered."""
        row = self._sql.execute(
            "SELECT version, position, mapping FROM contact WHERE ext_id = ?", (ext_id,)
        ).fetchone()
        return tuple(row) if row else None

    def identifiers(self, ext_id: str) -> str:
        """The fingerprint of the email and phone Brevo was last told of; an empty text where none is known."""
        row = self._sql.execute("SELECT identifiers FROM contact WHERE ext_id = ?", (ext_id,)).fetchone()
        return str(row[0]) if row else ""

    def deliver(self, told: Told) -> None:
        """Brevo has this version of the contact."""
        with self._transaction():
            self._change(told)

    def deliver_all(self, several: Iterable[Told]) -> None:
        """Brevo has these versions."""
        with self._transaction():
            for told in several:
                self._change(told)

    def whom(self, ext_id: str, at: int) -> tuple[str, bool]:
        """What the contact is called now that was meant by this name at a position of BREVO; and whether it was erased since.

        A name that was taken away stands for whoever had it, until it is given again.
        """
        moved = """SELECT EXISTS (SELECT 1 FROM renamed WHERE was = :name OR ext_id = :name)
            OR EXISTS (SELECT 1 FROM erased WHERE ext_id = :name)"""
        if not self._sql.execute(moved, {"name": ext_id}).fetchone()[0]:  # as most
            return ext_id, False
        touched = "SELECT ext_id, position FROM renamed WHERE (was = ? OR ext_id = ?) AND position <= ? ORDER BY position DESC"
        name, since = self._sql.execute(f"{touched} LIMIT 1", (ext_id, ext_id, at)).fetchone() or (ext_id, at)
        following = "SELECT ext_id, position FROM renamed WHERE was = ? AND position > ? ORDER BY position"
        erased = "SELECT 1 FROM erased WHERE ext_id = ? AND position >= ? AND position < ?"
        gone = False
        while True:
            then = self._sql.execute(f"{following} LIMIT 1", (name, since)).fetchone() or (name, END)
            gone = gone or bool(self._sql.execute(erased, (name, max(since, at), then[1])).fetchone())
            if then[1] == END:
                return name, gone
            name, since = then

    def renamed(self, ext_ids: Iterable[str], *, after: int) -> bool:
        """Whether one of these names was given or taken away after a position of BREVO."""
        touched = "SELECT 1 FROM renamed WHERE (was = ? OR ext_id = ?) AND position > ? LIMIT 1"
        return any(self._sql.execute(touched, (name, name, after)).fetchone() for name in ext_ids)

    def foreign_name(self, ext_id: str) -> str:
        """What somebody else called this contact at Brevo before we did; an empty text where nobody did."""
        row = self._sql.execute("SELECT name FROM foreign_name WHERE ext_id = ?", (ext_id,)).fetchone()
        return str(row[0]) if row else ""

    def keep_name(self, ext_id: str, name: str) -> None:
        """Somebody else called this contact so, and it stays so."""
        self._sql.execute("INSERT OR REPLACE INTO foreign_name VALUES (?, ?)", (ext_id, name))

    def relink(self, was: str, ext_id: str, position: int, id_: str) -> None:
        """From this position of BREVO on whatever is said of `was` is said of `ext_id`; the command `id_` is delivered."""
        with self._transaction():
            self._change(Relinked(was, ext_id, position, id_))

    def erase(self, ext_id: str, position: int, id_: str) -> None:
        """The contact is gone, and what was said of it up to this position of BREVO; the command `id_` is delivered."""
        with self._transaction():
            self._change(Erased(ext_id, position, id_))

    def _change(self, change: Change | None) -> None:
        match change:
            case Wrote(ids, state, batch):
                rows = _rows(ids, state, batch)
                self._sql.executemany(f"{_WRITE} WHERE state != {_NUMBER['delivered']}", rows)
            case Unsent(ids, batch):
                self._sql.executemany(
                    "DELETE FROM event WHERE id = ? AND batch = ? AND state <= 2",
                    [(id_, batch) for id_ in ids],
                )
            case Told():
                row = (change.ext_id, change.version, change.position, change.mapping, change.identifiers)
                self._sql.execute("INSERT OR REPLACE INTO contact VALUES (?, ?, ?, ?, ?)", row)
                if change.name:
                    self.keep_name(change.ext_id, change.name)
            case Relinked(was, ext_id, position, id_):
                if not position:  # a receipt from before they had one: of these only the last name is known
                    again = "UPDATE renamed SET ext_id = ? WHERE ext_id = ? AND position = 0"
                    self._sql.execute(again, (ext_id, was))
                    self._sql.execute("DELETE FROM renamed WHERE was = ? AND position = 0", (ext_id,))
                self._sql.execute("INSERT OR REPLACE INTO renamed VALUES (?, ?, ?)", (was, position, ext_id))
                if (name := self.foreign_name(was)) and not self.foreign_name(ext_id):
                    self.keep_name(ext_id, name)
                if self._sql.execute("DELETE FROM contact WHERE ext_id = ? RETURNING 1", (was,)).fetchall():
                    self._sql.execute("INSERT OR IGNORE INTO contact VALUES (?, 0, 0, '', '')", (ext_id,))
                self._sql.execute(_WRITE, (id_, _NUMBER["delivered"], ""))
            case Erased(ext_id, position, id_):
                for table in ("contact", "foreign_name"):
                    self._sql.execute(f"DELETE FROM {table} WHERE ext_id = ?", (ext_id,))  # noqa: S608 - one of two
                self._sql.execute("INSERT OR REPLACE INTO erased VALUES (?, ?)", (ext_id, position))
                self._sql.execute(_WRITE, (id_, _NUMBER["delivered"], ""))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within it nothing is written; so the file is locked once, and not for each question."""
        self._sql.execute("BEGIN")
        try:
            yield
        finally:
            self._sql.execute("COMMIT")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        before = self.sequence
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sql.execute("UPDATE includes SET sequence = ?", (self.sequence,))
        except BaseException:
            self._sql.execute("ROLLBACK")
            self.sequence = before
            raise
        self._sql.execute("COMMIT")


def _rows(ids: Iterable[str], state: State, batch: str) -> list[tuple[str, int, str]]:
    call = batch if state in ("sending", "in_doubt") else ""
    return [(id_, _NUMBER[state], call) for id_ in ids]
