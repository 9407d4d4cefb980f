"""A draft: a book that is made beside the one in force, by another mapping, and what making it in force would tell.

What a book puts out, a draft keeps: nothing of it is said until it is the book in force.  Everything stands in the one
file, so that a batch, what it makes and whom it touches are one transaction.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from mapper.book import Book
from mapper.fold import Page
from mapper.recognise import said_otherwise, settle_waiting
from shared import command
from shared.command import ContactRelink, EventTrack
from shared.message import Message
from shared.plan import ContactLine, EventLine, Tracked

CLEAR_MAX = 2000  # rows deleted at once: some ms

_TABLES = {
    "event": "(id TEXT PRIMARY KEY, ext_id TEXT NOT NULL, time TEXT NOT NULL, name TEXT NOT NULL, message BLOB NOT NULL)",
    "line": "(ext_id TEXT PRIMARY KEY, told TEXT NOT NULL, body BLOB, message BLOB)",
    "moved": "(was TEXT PRIMARY KEY, now TEXT NOT NULL, message BLOB)",
    "before": "(ext_id TEXT PRIMARY KEY, told TEXT NOT NULL)",
    "said": "(id TEXT PRIMARY KEY, has INTEGER NOT NULL, before INTEGER NOT NULL, ext_id TEXT NOT NULL, name TEXT NOT NULL, time TEXT NOT NULL)",
    "again": "(ext_id TEXT PRIMARY KEY)",
    "touched": "(ext_id TEXT PRIMARY KEY)",
    "note": "(key TEXT PRIMARY KEY, value TEXT NOT NULL)",
}
"""event: what the mapping makes, whether or not Brevo has it.  line: every customer; `body` and `message` where something
is done.  moved: names at Brevo that become another; without `message` the line is not made yet.  before: what each contact
was told when it was compared.  said: events that were said, `has` unless Brevo refused them, `before` where that was
before the last raw event of the draft was heard.  again: whom Brevo is told
again.  touched: who changed since it was compared."""

DRAFTED = ("event", "line", "moved", "before", "said", "again", "touched")
"""Of these, what a draft that is the book in force needs no more."""


class Draft(Book):
    """One file.  Its transactions are on disk once the next of the book in force is, or a checkpoint."""

    def __init__(self, path: Path | None) -> None:
        """Open or create the file; None keeps it in memory."""
        super().__init__(path)
        self._sql.execute(
            "PRAGMA synchronous = NORMAL"
        )  # a killed process loses nothing, a machine folds again
        for name, columns in _TABLES.items():
            self._sql.execute(f"CREATE TABLE IF NOT EXISTS {name} {columns} WITHOUT ROWID")
        self._sql.execute("CREATE INDEX IF NOT EXISTS event_of ON event (ext_id)")
        self._sql.execute("CREATE INDEX IF NOT EXISTS moved_to ON moved (now)")

    # -- as a book ----------------------------------------------------------------------------------------------

    def write(self, page: Page) -> None:
        """As a book does; and note who was touched, and whose the events are now."""
        super().write(page)
        touched = {*page.touched, *page.gone}
        self._sql.executemany("INSERT OR IGNORE INTO touched VALUES (?)", ((id_,) for id_ in touched))
        for was, now in page.gone.items():
            rows = self._sql.execute("SELECT message FROM event WHERE ext_id = ?", (was,)).fetchall()
            for (message,) in rows:
                self._keep(msgspec.structs.replace(_track(message), ext_id=now), _traceparent(message))

    def put_out(self, messages: Iterable[Message], *, first: bool = False) -> None:  # noqa: ARG002 - nothing goes out
        """Keep the events; nothing is published before the draft is the book in force."""
        for message in messages:
            one = command.from_body(message.body)
            if isinstance(one, EventTrack):
                self._keep(one, message.headers["traceparent"])

    @property
    def retelling(self) -> bool:
        """Never: contacts are compared, and told as the lines say."""
        return False

    @retelling.setter
    def retelling(self, retelling: bool) -> None:
        pass

    def _keep(self, one: EventTrack, traceparent: str) -> None:
        message = self._pack.encode(command.to_message(one, traceparent, past=True))
        row = (one.id, one.ext_id, one.time, one.name, message)
        self._sql.execute("INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?, ?)", row)

    # -- notes --------------------------------------------------------------------------------------------------

    def note(self, **notes: str | int) -> None:
        """Remember these, in the transaction of what they are about."""
        rows = ((key, str(value)) for key, value in notes.items())
        self._sql.executemany("INSERT OR REPLACE INTO note VALUES (?, ?)", rows)

    def noted(self, key: str) -> str:
        """What was noted; an empty text where nothing was."""
        row = self._sql.execute("SELECT value FROM note WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    # -- what was said ------------------------------------------------------------------------------------------

    def said(self, commands: Iterable[EventTrack], *, before: bool = True) -> None:
        """Brevo was told of these, or will be; all of that came of raw events the draft includes, or will, if `before`."""
        self._sql.executemany(
            """INSERT INTO said VALUES (?, 1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
            ext_id = excluded.ext_id, name = excluded.name, time = excluded.time, before = before OR excluded.before""",
            ((one.id, before, one.ext_id, one.name, one.time) for one in commands),
        )

    def ended(self, ids: Iterable[str], *, has: bool) -> None:
        """What became of them: whether Brevo has them, or may."""
        self._sql.executemany(
            "INSERT INTO said VALUES (?, ?, 1, '', '', '') ON CONFLICT (id) DO UPDATE SET has = excluded.has",
            ((id_, has) for id_ in ids),
        )

    def recognise(self, since: str = "") -> None:
        """What was said under another id is that event, and has that id: of what happened since (RFC 3339)."""
        for id_, said in said_otherwise(self._sql, since):
            ((message,),) = self._sql.execute("SELECT message FROM event WHERE id = ?", (id_,))
            self._sql.execute("DELETE FROM event WHERE id = ?", (id_,))
            self._keep(msgspec.structs.replace(_track(message), id=said), _traceparent(message))

    # -- whom to tell again -------------------------------------------------------------------------------------

    def tell_again(self, ext_ids: Iterable[str]) -> None:
        """Brevo is told of these customers, and no others, though nothing changed."""
        self._sql.execute("DELETE FROM again")
        self._sql.executemany("INSERT OR IGNORE INTO again VALUES (?)", ((id_,) for id_ in ext_ids))

    def again(self, ext_ids: set[str]) -> set[str]:
        """Which of these customers are told again."""
        return {id_ for (id_,) in self._select("SELECT ext_id FROM again WHERE ext_id IN", ext_ids)}

    def interactions_named(self, sids: set[str]) -> dict[str, str]:
        """Sid → key of the interaction it names."""
        return dict(self._select("SELECT sid, key FROM link WHERE sid IN", sids))

    def owners_of(self, sids: set[str]) -> set[str]:
        """Whose the interactions are that these sids name."""
        sql = """SELECT customer FROM link JOIN interaction USING (key) JOIN identifier ON identifier.key = anchor
            WHERE sid IN"""
        return {id_ for (id_,) in self._select(sql, sids)}

    # -- comparing ----------------------------------------------------------------------------------------------

    def owners(self, keys: set[str]) -> dict[str, str]:
        """Whose these identifiers are."""
        return dict(self._select("SELECT key, customer FROM identifier WHERE key IN", keys))

    def exist(self, ext_ids: set[str]) -> set[str]:
        """Which of these are customers."""
        return {id_ for (id_,) in self._select("SELECT id FROM customer WHERE id IN", ext_ids)}

    def touched(self) -> set[str]:
        """Customers that changed, or are no more, since they were compared."""
        return {id_ for (id_,) in self._sql.execute("SELECT ext_id FROM touched")}

    def all_compared(self) -> None:
        """What is touched from here on was not compared yet."""
        self._sql.execute("DELETE FROM touched")

    def compared(self, told: Mapping[str, str]) -> None:
        """What each of these contacts had been told when it was compared, as the other book has it."""
        self._sql.executemany("INSERT OR REPLACE INTO before VALUES (?, ?)", told.items())

    def all_told_before(self) -> dict[str, str]:
        """What each contact had been told when it was compared."""
        return dict(self._sql.execute("SELECT ext_id, told FROM before"))

    def forget_lines(self) -> None:
        """Nothing is compared any more."""
        for name in ("line", "moved", "before"):
            self._sql.execute(f"DELETE FROM {name}")  # noqa: S608 - ours

    def move(self, was: str, now: str) -> None:
        """A contact's name becomes another; its line follows."""
        self._sql.execute("INSERT OR REPLACE INTO moved VALUES (?, ?, NULL)", (was, now))

    def stay(self, names: set[str]) -> None:
        """Nothing is known any more of what these names become."""
        self._sql.executemany("DELETE FROM moved WHERE was = ?", ((name,) for name in names))

    def taken_by(self, ext_ids: set[str]) -> dict[str, str]:
        """Names that become one of these → which."""
        return dict(self._select("SELECT was, now FROM moved WHERE now IN", ext_ids))

    def moved(self, names: set[str]) -> dict[str, str]:
        """What these names become; who keeps its own is left out."""
        return dict(self._select("SELECT was, now FROM moved WHERE was IN", names))

    def unsettle(self, ext_ids: set[str]) -> None:
        """Forget the lines of these, and what they were told."""
        for name in ("line", "before"):
            sql = f"DELETE FROM {name} WHERE ext_id = ?"  # noqa: S608 - ours
            self._sql.executemany(sql, ((id_,) for id_ in ext_ids))

    def settle(
        self,
        ext_id: str,
        told: str,
        line: ContactLine | None,
        upsert: Message | None,
        relinks: Sequence[tuple[ContactRelink, Message]],
    ) -> None:
        """What is done to a contact, and what says so; `told` is what it then was told."""
        body = None if line is None else self._pack.encode(line)
        message = None if upsert is None else self._pack.encode(upsert)
        self._sql.execute("INSERT OR REPLACE INTO line VALUES (?, ?, ?, ?)", (ext_id, told, body, message))
        self._sql.executemany(
            "UPDATE moved SET message = ? WHERE was = ?",
            ((self._pack.encode(message), one.was) for one, message in relinks),
        )

    def lines(self) -> Iterator[ContactLine]:
        """Those where something is done, or stays, by ext_id."""
        rows = self._sql.execute("SELECT body FROM line WHERE body IS NOT NULL ORDER BY ext_id")
        return (msgspec.msgpack.decode(body, type=ContactLine) for (body,) in rows)

    def customers_told(self) -> int:
        """How many Brevo was told of, or will be."""
        return int(self._sql.execute("SELECT COUNT(*) FROM line WHERE told != ''").fetchone()[0])

    def event_lines(self, since: str, waiting: set[str]) -> Iterator[EventLine]:
        """Of the events that were never said, what is done; and those Brevo has that the mapping does not make.

        But what still waits to be told.
        """
        sql = """SELECT id, ext_id, name, time, CASE WHEN time < ? THEN 'suppress' ELSE 'send' END AS action FROM event
            WHERE id NOT IN (SELECT id FROM said)
            UNION ALL SELECT id, ext_id, name, time, 'sent' FROM said
            WHERE has AND before AND id NOT IN (SELECT id FROM event) ORDER BY time, id"""
        for id_, ext_id, name, time, action in self._sql.execute(sql, (since,)):
            if action != "sent" or id_ not in waiting:
                yield EventLine(
                    id=id_, ext_id=ext_id, name=name or _type(id_), time=time, action=_action(action)
                )

    def events_by_customer(self, since: str) -> Iterator[tuple[str, str, str, str]]:
        """(ext_id, id, name, time) of all that Brevo was or will be told, by ext_id, then time."""
        sql = """SELECT event.ext_id, event.id, COALESCE(NULLIF(said.name, ''), event.name), event.time
            FROM event LEFT JOIN said USING (id) WHERE said.has OR said.id IS NULL AND event.time >= ?
            UNION ALL SELECT ext_id, id, name, time FROM said WHERE has AND id NOT IN (SELECT id FROM event)
            ORDER BY 1, 4, 2"""
        return self._sql.execute(sql, (since,))

    # -- making it the book in force ----------------------------------------------------------------------------

    def bring_lines_on(self, since: str) -> int:
        """Everything the lines say into the backlog: new names, then contacts, then events.  Returns how many.

        Whatever stood there was never published, for the draft was not in force.  What waits though it was said never
        goes out.
        """
        self.recognise(since)
        settle_waiting(self)
        return self.backlog.fill(
            "SELECT now, message FROM moved WHERE message IS NOT NULL ORDER BY now, was",
            "SELECT ext_id, message FROM line WHERE message IS NOT NULL ORDER BY ext_id",
            """SELECT ext_id, message FROM event
            WHERE time >= :since AND id NOT IN (SELECT id FROM said) ORDER BY time, id""",
            since=since,
        )

    def clear(self) -> bool:
        """Forget some of what only a draft needs; returns whether there is more."""
        for name in DRAFTED:
            key = _TABLES[name][1:].partition(" ")[0]
            sql = f"DELETE FROM {name} WHERE {key} IN (SELECT {key} FROM {name} LIMIT ?)"  # noqa: S608 - ours
            if self._sql.execute(sql, (CLEAR_MAX,)).rowcount:
                return True
        return False


def _track(message: bytes) -> EventTrack:
    one = command.from_body(msgspec.msgpack.decode(message, type=Message).body)
    assert isinstance(one, EventTrack)  # noqa: S101 - nothing else stands there
    return one


def _traceparent(message: bytes) -> str:
    return msgspec.msgpack.decode(message, type=Message).headers["traceparent"]


def _type(id_: str) -> str:
    """The domain event type in a command id, its last part."""
    return id_.rpartition("/")[2]


def _action(word: str) -> Tracked:
    return "send" if word == "send" else "suppress" if word == "suppress" else "sent"
