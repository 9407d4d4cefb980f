"""The book: interactions, customers, identifiers and the outbox, in SQLite.  A projection of the stream TWILIO."""

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import sqlite_utils

from mapper import schema
from mapper.backlog import Backlog
from mapper.customer import Aggregates, Customer
from mapper.fold import Page
from mapper.heard import Heard
from mapper.identity import Known
from mapper.interaction import Interaction
from mapper.step import due_ms, summaries
from shared.config import Config
from shared.message import Message

IN_MAX = 5000  # values in one IN (...); SQLite takes 32,766: https://www.sqlite.org/limits.html#max_variable_number
NEIGHBOURHOOD = 3  # steps from an identifier to those whose customer it can change: itself, what it merges, what they share
FIRST = -(2**40)  # of the outbox: where what goes first begins
DUE_MAX = 500  # interactions, or customers, looked at again in one go: as many as a batch has messages


UNHURRIED_PAGES = 16_000  # of 4 KiB in the write-ahead log: 64 MB of disk


class Size(NamedTuple):
    """How many of each the book holds."""

    interactions: int
    customers: int
    agents: int


class Book:
    """One file.  Every change is one transaction, on disk when it returns (WAL, synchronous FULL)."""

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        """Open or create the file; None keeps the book in memory."""
        if read_only:
            connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
        else:
            connection = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._db = sqlite_utils.Database(connection)
        self._sql = connection
        if not read_only:
            if path:
                path.chmod(0o600)  # it holds who the customers are
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                "cache_size = -32768",
                "mmap_size = 0",
                "secure_delete = ON",  # what is deleted is overwritten
            ):
                self._sql.execute(f"PRAGMA {pragma}")
            schema.create(self._db)
        self.backlog = Backlog(self._sql)
        self._pack = msgspec.msgpack.Encoder()
        self._interaction = msgspec.msgpack.Decoder(Interaction)
        self._customer = msgspec.msgpack.Decoder(Customer)
        self._known = msgspec.msgpack.Decoder(Known)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """For who erases (erase.py)."""
        return self._sql

    def decode_interaction(self, body: bytes) -> Interaction:
        """A row's body."""
        return self._interaction.decode(body)

    def decode_known(self, body: bytes) -> Known:
        """A row's body."""
        return self._known.decode(body)

    def around(self, identifiers: Iterable[str]) -> Page:
        """All that a change of these can touch."""
        return self._page({}, identifiers)

    def __enter__(self) -> None:
        self._sql.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._sql.execute("COMMIT" if kind is None else "ROLLBACK")

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """Within it, a machine that dies may take the last transactions along, each whole; after it, all are on disk.

        For who folds what the log has anyway: it goes on from the sequence that is left.  The default checkpoint, each
        1,000 pages, would come with every batch, and write the same pages of a large book again each time.
        """
        self._sql.execute("PRAGMA synchronous = NORMAL")
        self._sql.execute(f"PRAGMA wal_autocheckpoint = {UNHURRIED_PAGES}")
        try:
            yield
        finally:
            self._sql.execute("PRAGMA synchronous = FULL")
            self._sql.execute("PRAGMA wal_autocheckpoint = 1000")
            with self:
                self.sequence = self.sequence  # a transaction that is on disk with all before it

    # -- reading ----------------------------------------------------------------------------------------------

    def page(self, heard: Sequence[Heard]) -> Page:
        """All that these events can touch."""
        links = dict(
            self._select(
                "SELECT sid, key FROM link WHERE sid IN", {sid for one in heard for sid in one.links}
            )
        )
        return self._page(
            links, (f"{kind}:{value}" for one in heard for kind, value in one.identifiers.items())
        )

    def is_due(self, now_ms: int) -> bool:
        """Whether anything has waited long enough."""
        sql = "SELECT 1 FROM interaction WHERE due_ms > 0 AND due_ms <= ? LIMIT 1"
        return self._sql.execute(sql, (now_ms,)).fetchone() is not None

    def due(self, now_ms: int) -> Page:
        """All of the interactions that wait and whose time has come, at most DUE_MAX, as changed ones."""
        rows = self._sql.execute(
            "SELECT key FROM interaction WHERE due_ms > 0 AND due_ms <= ? ORDER BY due_ms LIMIT ?",
            (now_ms, DUE_MAX),
        )
        page = self._page({key: key for (key,) in rows}, ())
        page.changed.update(page.interactions)
        return page

    def _page(self, links: dict[str, str], identifiers: Iterable[str]) -> Page:
        keys = set(links.values())
        interactions = {
            row[0]: self._interaction.decode(row[1])
            for row in self._select("SELECT key, body FROM interaction WHERE key IN", keys)
        }
        known: dict[str, Known] = {}
        whole: set[str] = set()
        news: set[str] = {*identifiers, *(key for one in interactions.values() for key in one.identifiers)}
        # What these were seen with, and what that was seen with: so far can one event reach (identity.owners).
        for _ in range(NEIGHBOURHOOD):
            self._identifiers("key", news - known.keys(), known)
            ids = {one.customer for one in known.values()} - whole
            self._identifiers("customer", ids, known)
            whole |= ids
            news = {key for one in known.values() for key in one.beside}
        customers = {
            row[0]: self._customer.decode(row[1])
            for row in self._select("SELECT id, body FROM customer WHERE id IN", whole)
        }
        return Page(links, interactions, known, whole, customers)

    def snapshot(self) -> int:
        """From here on all that is read is as it is now, whatever others write; the last TWILIO sequence it includes."""
        self._sql.execute("BEGIN")
        return self.sequence

    def find(self, whom: str) -> list[str]:
        """Customers by mail, phone, external id, ext_id, or a sid of an interaction of theirs."""
        sql = """SELECT customer FROM identifier WHERE key IN (:mail, :phone, :external)
            UNION SELECT id FROM customer WHERE id = :whom
            UNION SELECT customer FROM link JOIN interaction USING (key) JOIN identifier ON identifier.key = anchor
            WHERE sid = :whom"""
        keys = {"mail": f"email:{whom.lower()}", "phone": f"phone:{whom}", "external": f"external:{whom}"}
        return [id_ for (id_,) in self._sql.execute(sql, {**keys, "whom": whom})]

    def whose(self, sids: Iterable[str]) -> dict[str, str]:
        """The customer of the interaction that each of these sids names, as far as there is one."""
        sql = """SELECT sid, customer FROM link JOIN interaction USING (key) JOIN identifier ON identifier.key = anchor
            WHERE sid IN"""
        return dict(self._select(sql, set(sids)))

    def customers(self, after: str) -> Page:
        """The next customers by id, at most DUE_MAX, as touched ones."""
        rows = self._sql.execute("SELECT id FROM customer WHERE id > ? ORDER BY id LIMIT ?", (after, DUE_MAX))
        return self.page_of([id_ for (id_,) in rows])

    def page_of(self, ids: Sequence[str]) -> Page:
        """These customers with their identifiers, as touched ones."""
        rows = self._select("SELECT id, body FROM customer WHERE id IN", set(ids))
        customers = {id_: self._customer.decode(body) for id_, body in rows}
        known: dict[str, Known] = {}
        self._identifiers("customer", set(customers), known)
        return Page({}, {}, known, set(customers), customers, touched=dict.fromkeys(customers, ""))

    def _identifiers(self, column: str, values: set[str], into: dict[str, Known]) -> None:
        sql = f"SELECT key, body FROM identifier WHERE {column} IN"  # noqa: S608 - one of two words
        into.update((key, self._known.decode(body)) for key, body in self._select(sql, values))

    def interactions_of(self, customer: str) -> Iterator[Interaction]:
        """All of a customer's interactions."""
        sql = """SELECT interaction.body FROM identifier JOIN interaction ON interaction.anchor = identifier.key
            WHERE identifier.customer IN"""
        return (self._interaction.decode(body) for (body,) in self._select(sql, {customer}))

    def interactions(self) -> Iterator[Interaction]:
        """All of them."""
        return (
            self._interaction.decode(body) for (body,) in self._sql.execute("SELECT body FROM interaction")
        )

    def waiting(self) -> Iterator[Interaction]:
        """Those in which an event waits to be told."""
        rows = self._sql.execute("SELECT body FROM interaction WHERE due_ms > 0")
        return (self._interaction.decode(body) for (body,) in rows)

    def size(self) -> Size:
        """Counted row by row, in an index: with millions of them not for the event loop."""
        sql = """SELECT (SELECT COUNT(*) FROM interaction), (SELECT COUNT(*) FROM customer),
            (SELECT COUNT(*) FROM agent)"""
        return Size(*self._sql.execute(sql).fetchone())

    def facts(self) -> dict[str, Any]:
        """All that follows from the log alone, however it was heard: not the rows' names, nor what waits since when."""

        def rows(table: str) -> Iterator[tuple[Any, ...]]:
            return self._sql.execute(f"SELECT body FROM {table}")  # noqa: S608 - a name of ours

        interactions = [self._interaction.decode(body) for (body,) in rows("interaction")]
        for one in interactions:
            one.key, one.waiting = "", {}
        customers = (self._customer.decode(body) for (body,) in rows("customer"))
        return {
            "interactions": {min(one.links): one for one in interactions},
            "identifiers": {
                key: self._known.decode(body)
                for key, body in self._sql.execute("SELECT key, body FROM identifier")
            },
            "customers": {one.id: one.fields for one in customers if one.fields},
            "agents": {sid for (sid,) in self._sql.execute("SELECT sid FROM agent")},
        }

    def aggregates(self, customers: Iterable[str], channels: Sequence[str]) -> dict[str, Aggregates]:
        """Over each customer's interactions in these channels; a customer with none is left out."""
        found: dict[str, Aggregates] = {}
        ids, among = set(customers), ", ".join("?" * len(channels))
        totals = f"""SELECT customer, channel, COUNT(*), MAX(start_ms), MIN(start_ms), SUM(handled OR abandoned),
            SUM(abandoned), SUM(open_tasks), SUM(wait_ms), COUNT(wait_ms), SUM(handle_ms), COUNT(handle_ms)
            FROM identifier JOIN interaction ON interaction.anchor = identifier.key
            WHERE channel IN ({among}) AND customer IN"""  # noqa: S608 - question marks
        for customer, channel, count, last, first, total, *sums in self._select(
            totals, ids, channels, "GROUP BY 1, 2"
        ):
            one = found.setdefault(customer, Aggregates())
            one.per_channel[channel] = (count, last)
            one.last_ms, one.first_ms = max(one.last_ms, last), min(one.first_ms or first, first)
            one.total += total
            one.abandoned += sums[0]
            one.open_tasks += sums[1]
            one.wait_ms = (one.wait_ms[0] + (sums[2] or 0), one.wait_ms[1] + sums[3])
            one.handle_ms = (one.handle_ms[0] + (sums[4] or 0), one.handle_ms[1] + sums[5])
        latest = f"""SELECT customer, MAX(score)
            FROM identifier JOIN interaction ON interaction.anchor = identifier.key
            WHERE score_ms IS NOT NULL AND channel IN ('', {among}) AND customer IN"""  # noqa: S608 - question marks
        # The last wins; of two in one millisecond the better, so that it is never chance.
        for customer, score in self._select(latest, ids, channels, "GROUP BY 1, score_ms ORDER BY score_ms"):
            found.setdefault(customer, Aggregates()).score = score
        return found

    # -- writing ----------------------------------------------------------------------------------------------

    def write(self, page: Page) -> None:
        """Store the page's changed interactions and whose they are.  Customers follow with `write_customers`."""
        changed = [page.interactions[key] for key in page.changed]
        self._sql.executemany("DELETE FROM interaction WHERE key = ?", ((key,) for key in page.joined))
        self._sql.executemany(
            "INSERT OR REPLACE INTO interaction VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (*msgspec.structs.astuple(summary), due_ms(one), self._pack.encode(one))
                for one, summary in zip(changed, summaries(iter(changed)), strict=True)
            ),
        )
        self._sql.executemany(
            "INSERT OR REPLACE INTO link VALUES (?, ?)", ((sid, page.links[sid]) for sid in page.linked)
        )
        self._sql.executemany(
            "INSERT OR REPLACE INTO identifier VALUES (?, ?, ?)",
            ((key, (one := page.known[key]).customer, self._pack.encode(one)) for key in page.noted),
        )
        self._sql.executemany("DELETE FROM customer WHERE id = ?", ((id_,) for id_ in page.gone))

    def write_customers(self, customers: Iterable[Customer]) -> None:
        """Store them."""
        self._sql.executemany(
            "INSERT OR REPLACE INTO customer VALUES (?, ?)",
            ((one.id, self._pack.encode(one)) for one in customers),
        )

    def note_agents(self, sids: Iterable[str]) -> None:
        """These workers were asked to take a task, or took one."""
        self._sql.executemany("INSERT OR IGNORE INTO agent VALUES (?)", ((sid,) for sid in sids))

    def put_out(self, messages: Iterable[Message], *, first: bool = False) -> None:
        """Append to the outbox, in the same transaction as what caused them; or `first`, ahead of all that is not."""
        sql = "INSERT INTO outbox (message) VALUES (?)"
        if first:
            sql = f"""INSERT INTO outbox (number, message)
                SELECT COALESCE(MAX(number), {FIRST}) + 1, ? FROM outbox WHERE number < 0"""  # noqa: S608 - ours
        self._sql.executemany(sql, ((self._pack.encode(message),) for message in messages))

    def outbox(self, after: int, limit: int) -> tuple[int, list[Message]]:
        """The oldest messages beyond a number, in order, and the number of the last."""
        rows = self._sql.execute(
            "SELECT number, message FROM outbox WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
        ).fetchall()
        return (rows[-1][0] if rows else 0), [msgspec.msgpack.decode(row[1], type=Message) for row in rows]

    def published(self, number: int) -> None:
        """Forget the outbox up to and with this number."""
        self._sql.execute("DELETE FROM outbox WHERE number <= ?", (number,))

    @property
    def sequence(self) -> int:
        """The last TWILIO sequence the book includes; 0 for an empty book."""
        return int(self._sql.execute("SELECT sequence FROM position").fetchone()[0])

    @sequence.setter
    def sequence(self, sequence: int) -> None:
        self._sql.execute("UPDATE position SET sequence = MAX(?, sequence)", (sequence,))

    @property
    def retelling(self) -> bool:
        """Whether contacts are still to be said that a rebuild left out."""
        return bool(self._sql.execute("SELECT retelling FROM position").fetchone()[0])

    @retelling.setter
    def retelling(self, retelling: bool) -> None:
        self._sql.execute("UPDATE position SET retelling = ?", (retelling,))

    def note_mapping(self, config: Config) -> None:
        """From here on Brevo is told by this mapping: what it was told by it can be made again."""
        row = (config.hash, msgspec.json.encode(config))
        self._sql.execute("INSERT OR REPLACE INTO mapping VALUES (?, ?)", row)

    def mappings(self) -> dict[str, Config]:
        """By hash, those Brevo was told by."""
        rows = self._sql.execute("SELECT hash, config FROM mapping")
        return {hash_: msgspec.json.decode(config, type=Config) for hash_, config in rows}

    # -- the file ---------------------------------------------------------------------------------------------

    def _select(
        self, sql: str, values: set[str], before: Sequence[Any] = (), after: str = ""
    ) -> Iterator[tuple[Any, ...]]:
        """Run `<sql> (?, …) <after>` over the values, IN_MAX at a time."""
        rest = iter(values)
        while chunk := list(itertools.islice(rest, IN_MAX)):
            marks = ", ".join("?" * len(chunk))
            yield from self._sql.execute(f"{sql} ({marks}) {after}", (*before, *chunk))
