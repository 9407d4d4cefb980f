"""Events that were said under another id, recognised when the log is folded again.

An event of a whole interaction, conversation.ended or survey.completed, has the interaction's sid in its id, as that was
known when it was said.  Folded again, more may be known of it by then: its conversation was heard of late, two
interactions turned out to be one.  Such an event is one that was said if that has any of the interaction's links in the
place of the sid.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain

import msgspec

from mapper.book import Book
from mapper.fold import Page
from mapper.step import ENDED, SURVEY, waiting_ids
from shared import command
from shared.message import MSG_ID, Message

_AT = f"COALESCE(NULLIF(instr(event.id, '/{ENDED}/'), 0), instr(event.id, '/{SURVEY}/'))"
"""Where the sid in the id of an interaction's own event ends; 0 in the id of any other."""

_UNSAID = f"""SELECT event.id, interaction.body FROM event
    JOIN link ON link.sid = substr(event.id, 1, {_AT} - 1) JOIN interaction USING (key)
    WHERE event.time >= ? AND {_AT} > 0 AND event.id NOT IN (SELECT id FROM said)"""  # noqa: S608 - ours


class _Named(msgspec.Struct):
    """Of an interaction in the book, what it is called."""

    links: set[str] = set()


_NAMED = msgspec.msgpack.Decoder(_Named)


def said_otherwise(sql: sqlite3.Connection, since: str = "") -> list[tuple[str, str]]:
    """(id, the id it was said under) of what stands in a table `event` and happened since, by a table `said`.

    An interaction's links stand in its row: to join them, SQLite would need an index that nothing else does.
    """
    if sql.execute("SELECT 1 FROM said LIMIT 1").fetchone() is None:
        return []
    found = []
    for id_, body in sql.execute(_UNSAID, (since,)):
        sid, end = _parts(id_)
        names = msgspec.json.encode([f"{link}{end}" for link in _NAMED.decode(body).links - {sid}]).decode()
        ((said,),) = sql.execute(
            "SELECT MIN(id) FROM said WHERE id IN (SELECT value FROM json_each(?))", (names,)
        )
        if said:
            found.append((id_, said))
    return found


def settle_waiting(book: Book) -> None:
    """What waits though it stands in a table `said`, under whichever id, was told.  The caller opens the transaction."""
    sql = "SELECT id FROM said WHERE id IN (SELECT value FROM json_each(?))"
    for one in list(book.waiting()):
        ids = waiting_ids(one)
        asked = msgspec.json.encode(list(chain.from_iterable(ids.values()))).decode()
        said = {id_ for (id_,) in book.connection.execute(sql, (asked,))}
        if told := {key for key, some in ids.items() if some & said}:
            one.waiting = {key: event for key, event in one.waiting.items() if key not in told}
            one.told |= told
            book.write(Page({}, {one.key: one}, {}, set(), {}, changed={one.key}))


class Said:
    """Ids of events that were said, beside a book that was made whole; of a whole interaction's events alone."""

    def __init__(self, book: Book) -> None:
        self._book, self._sql = book, book.connection
        self._sql.execute("CREATE TEMP TABLE said (id TEXT PRIMARY KEY) WITHOUT ROWID")
        self._sql.execute(
            "CREATE TEMP TABLE event (id TEXT PRIMARY KEY, number INTEGER, time TEXT) WITHOUT ROWID"
        )

    def note(self, ids: Iterable[str]) -> None:
        """These were said."""
        with self._book:
            self._sql.executemany(
                "INSERT OR IGNORE INTO temp.said VALUES (?)", ((id_,) for id_ in ids if _own(id_))
            )

    def recognise(self) -> None:
        """In the outbox these have the id they were said under, so that the sink knows them; and what waits was told."""
        with self._book:
            self._sql.executemany("INSERT OR REPLACE INTO temp.event VALUES (?, ?, '')", self._in_outbox())
            for id_, said in said_otherwise(self._sql):
                self._rename(id_, said)
            settle_waiting(self._book)

    def close(self) -> None:
        """Forget them."""
        for table in ("said", "event"):
            self._sql.execute(f"DROP TABLE temp.{table}")

    def _in_outbox(self) -> Iterator[tuple[str, int]]:
        for number, packed in self._sql.execute("SELECT number, message FROM outbox"):
            id_ = msgspec.msgpack.decode(packed, type=Message).headers[MSG_ID]
            if _own(id_):
                yield id_, number

    def _rename(self, id_: str, said: str) -> None:
        ((number, packed),) = self._sql.execute(
            "SELECT number, message FROM outbox JOIN temp.event USING (number) WHERE event.id = ?", (id_,)
        )
        message = msgspec.msgpack.decode(packed, type=Message)
        one = msgspec.structs.replace(command.from_body(message.body), id=said)
        named = Message(message.subject, msgspec.json.encode(one), {**message.headers, MSG_ID: said})
        self._sql.execute(
            "UPDATE outbox SET message = ? WHERE number = ?", (msgspec.msgpack.encode(named), number)
        )


def _parts(id_: str) -> tuple[str, str]:
    """The sid in the id of an interaction's own event, and what follows it."""
    at = id_.find(f"/{ENDED}/")
    at = id_.index(f"/{SURVEY}/") if at < 0 else at
    return id_[:at], id_[at:]


def _own(id_: str) -> bool:
    """Whether this is the id of an event of a whole interaction."""
    return f"/{ENDED}/" in id_ or f"/{SURVEY}/" in id_
