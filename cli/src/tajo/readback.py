"""Reading back what of a Brevo account is ours: contacts page by page, events by name and time, within Brevo's limits.

What was read is kept in a file of SQLite's that is gone when it is closed: memory stays what a page needs.
https://developers.brevo.com/reference/getcontacts-1, https://developers.brevo.com/reference/get-events
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from brevo_sink.brevo import Brevo, Reply
from brevo_sink.budget import bucket_of
from brevo_sink.preflight import why_not
from brevo_sink.relink import PREFIX
from brevo_sink.request import IDEMPOTENCY_KEY
from shared.replay import Expected
from tajo import drift
from tajo.drift import Contact, Difference, Event, Ours

CONTACTS_MAX = 1000  # a page
EVENTS_MAX = 10_000  # a page; its calls are among the 100 an hour of "all others"
OVERLAP = 1  # contacts that a page repeats of the one before: what was deleted meanwhile moves the pages
TRIES_MAX = 6  # of a call that fails, and of reading events anew while their number changes
AGAIN_S = 1.0  # after the first failure; then twice as long each time
OK, TOO_MANY, SERVER_ERROR = 200, 429, 500
NOTHING = Ours()

OnLook = Callable[[str, int, int], None]
"""Told of "contacts" or "events": how many of how many are read."""

T = TypeVar("T")


class ReadBackError(Exception):
    """Brevo cannot be read: why, and what to do."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


class _ContactShown(Struct):
    id: int
    email: str | None = None
    attributes: dict[str, Any] = {}
    listIds: tuple[int, ...] = ()  # noqa: N815 - Brevo's word


class _Contacts(Struct):
    contacts: list[_ContactShown] | None = None  # absent where there is none
    count: int = 0


class _EventShown(Struct):
    contact_id: int | None = None
    event_name: str = ""
    event_date: str = ""
    event_properties: dict[str, Any] | None = None


class _Events(Struct):
    events: list[_EventShown] | None = None
    count: int = 0


class Found:
    """What Brevo holds of ours.  `names` says whose a contact is that is not called as its customer is.

    That is one that somebody else named, or of two that turned out to be one the other.  (What a sink set aside bears
    its customer's name and a number, and is known without.)
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = names or {}
        self._sql = sqlite3.connect(
            "", isolation_level=None
        )  # a temporary file, 0600, gone with the connection
        self._sql.execute(
            "CREATE TABLE contact (id INTEGER PRIMARY KEY, ext_id TEXT NOT NULL, owner TEXT NOT NULL, body BLOB NOT NULL)"
        )
        self._sql.execute("CREATE INDEX contact_owner ON contact (owner)")
        self._sql.execute(
            "CREATE TABLE event (contact_id INTEGER NOT NULL, body BLOB NOT NULL, id TEXT NOT NULL)"
        )
        self._sql.execute("CREATE INDEX event_contact ON event (contact_id)")
        self._sql.execute("CREATE INDEX event_id ON event (id)")
        self._pack = msgspec.msgpack.Encoder()
        self._contact = msgspec.msgpack.Decoder(Contact)
        self._event = msgspec.msgpack.Decoder(Event)

    def close(self) -> None:
        """Forget it all."""
        self._sql.close()

    @property
    def contacts(self) -> int:
        """How many contacts are ours."""
        return int(self._sql.execute("SELECT COUNT(*) FROM contact").fetchone()[0])

    @property
    def events(self) -> int:
        """Likewise."""
        return int(self._sql.execute("SELECT COUNT(*) FROM event").fetchone()[0])

    def of(self, customer: str) -> tuple[Contact | None, list[Event]]:
        """The contact that is a customer's, and the events at any contact that is or was."""
        rows = self._sql.execute("SELECT ext_id, body FROM contact WHERE owner = ?", (customer,)).fetchall()
        # Its own name goes before one that somebody else gave, and that before what was set aside.
        rows.sort(key=lambda row: (row[0] != customer, row[0].startswith(PREFIX), row[0]))
        contact = self._contact.decode(rows[0][1]) if rows else None
        sql = "SELECT event.body FROM event JOIN contact ON contact.id = contact_id WHERE owner = ?"
        return contact, [self._event.decode(body) for (body,) in self._sql.execute(sql, (customer,))]

    def whose(self, event: str) -> list[str]:
        """The customers at whose contacts an event of this id is; an empty text for a contact that is not ours."""
        sql = "SELECT COALESCE(owner, '') FROM event LEFT JOIN contact ON contact.id = contact_id WHERE event.id = ?"
        return [owner for (owner,) in self._sql.execute(sql, (event,))]

    def owners(self) -> Iterator[str]:
        """The customers who have a contact, in order."""
        return (owner for (owner,) in self._sql.execute("SELECT DISTINCT owner FROM contact ORDER BY owner"))

    def all_contacts(self) -> Iterator[Contact]:
        """All that were read."""
        return (self._contact.decode(body) for (body,) in self._sql.execute("SELECT body FROM contact"))

    def add_contacts(self, contacts: Iterable[Contact]) -> None:
        """Keep those that are ours; one read again takes its own place."""
        self._sql.execute("BEGIN")
        self._sql.executemany(
            "INSERT OR REPLACE INTO contact VALUES (?, ?, ?, ?)",
            (
                (one.id, one.ext_id, owner, self._pack.encode(one))
                for one in contacts
                if (owner := self._owner(one.ext_id))
            ),
        )
        self._sql.execute("COMMIT")

    def add_events(self, events: Iterable[Event]) -> None:
        """Keep these."""
        self._sql.execute("BEGIN")
        self._sql.executemany(
            "INSERT INTO event VALUES (?, ?, ?)",
            ((one.contact_id, self._pack.encode(one), one.id) for one in events),
        )
        self._sql.execute("COMMIT")

    def forget_events(self) -> None:
        """They are read anew."""
        self._sql.execute("DELETE FROM event")

    def _owner(self, ext_id: str) -> str:
        """Whose a contact called so is; an empty text where it is none of ours."""
        named = self._names.get(ext_id)
        return named or (ext_id.partition(".")[0] if ext_id.startswith(PREFIX) else "")


async def pages(brevo: Brevo, *, modified_since: str = "", on_look: OnLook) -> AsyncIterator[list[Contact]]:
    """All contacts of an account, oldest first; what is made meanwhile comes last.  Raises ReadBackError.

    A page begins with the last contact of the one before.  Where it does not, contacts were deleted and the pages have
    moved: the one before is read again.
    """
    since = [("modifiedSince", modified_since)] if modified_since else []
    offset, last, again = 0, 0, 0
    while True:
        asked = [("limit", str(CONTACTS_MAX)), ("offset", str(offset)), ("sort", "asc"), *since]
        page = await _get(brevo, "/contacts", asked, _Contacts)
        shown = page.contacts or []
        if last and (not shown or shown[0].id != last) and again < TRIES_MAX:
            offset, last, again = max(0, offset - CONTACTS_MAX + OVERLAP), 0, again + 1
            continue
        yield [_contact(one) for one in shown]
        on_look("contacts", offset + len(shown), page.count)
        if len(shown) < CONTACTS_MAX:
            return
        offset, last, again = offset + len(shown) - OVERLAP, shown[-1].id, 0


async def newest(brevo: Brevo) -> list[Contact]:
    """The contacts made last, a page of them.  Raises ReadBackError."""
    page = await _get(brevo, "/contacts", [("limit", str(CONTACTS_MAX)), ("sort", "desc")], _Contacts)
    return [_contact(one) for one in page.contacts or []]


async def account(brevo: Brevo) -> str:
    """Tells one account from another, whichever key is used.  Raises ReadBackError."""
    shown = await _get(brevo, "/account", [], dict[str, Any])
    named = str(shown.get("organization_id") or shown.get("email") or "")
    return hashlib.sha256(named.encode()).hexdigest()[:16]


async def read_contacts(brevo: Brevo, found: Found, *, modified_since: str = "", on_look: OnLook) -> None:
    """Read all contacts, or those changed at Brevo since (UTC, YYYY-MM-DDTHH:mm:ss.SSSZ).  Raises ReadBackError."""
    async for page in pages(brevo, modified_since=modified_since, on_look=on_look):
        found.add_contacts(page)


async def read_events(
    brevo: Brevo, found: Found, *, names: Sequence[str], since: str, until: str, on_look: OnLook
) -> None:
    """Read the events called so that happened in a time (RFC 3339, `until` exclusive).  Raises ReadBackError.

    Brevo gives an event no id, so a page that moved would count one twice: while their number changes they are read anew.
    Choose `until` so that few happen before it still.
    """
    for _ in range(TRIES_MAX):
        if not names or await _read_events(brevo, found, names, (since, until), on_look):
            return
        found.forget_events()
    raise ReadBackError(
        "events of that time keep coming while they are read",
        "read up to an earlier time, or wait until what is being sent has been sent",
    )


async def _read_events(
    brevo: Brevo, found: Found, names: Sequence[str], time: tuple[str, str], on_look: OnLook
) -> bool:
    """Whether their number stayed the same."""
    days = [("startDate", time[0]), ("endDate", time[1])]
    fixed = [*(("event_name", name) for name in names), *days, ("limit", str(EVENTS_MAX))]
    offset, count = 0, -1
    while True:
        page = await _get(brevo, "/events", [*fixed, ("offset", str(offset))], _Events)
        if count not in (-1, page.count):
            return False
        shown, count = page.events or [], page.count
        found.add_events(event for one in shown if (event := _event(one)) is not None)
        offset += len(shown)
        on_look("events", offset, count)
        if len(shown) < EVENTS_MAX:
            return True


def compare(
    expected: Iterable[Expected], found: Found, ours: Ours = NOTHING, *, until: str = ""
) -> Iterator[Difference]:
    """Where Brevo holds something else, customer by customer; then the contacts that nobody expects.

    Of all customers at once only the names need memory.
    """
    known: set[str] = set()
    for one in expected:
        known.add(one.ext_id)
        contact, events = found.of(one.ext_id)
        for difference in drift.differences(one, contact, events, ours, until=until):
            yield _elsewhere(difference, found) if difference.kind == "event_missing" else difference
    for owner in found.owners():
        if owner not in known:
            yield Difference(kind="contact_extra", ext_id=owner)


class Held(Struct):
    """How much there is, and a hash of it."""

    contacts: int = 0
    attributes: int = 0
    lists: int = 0  # memberships
    events: int = 0
    hash: str = ""


def totals(expected: Iterable[Expected], found: Found, ours: Ours = NOTHING) -> tuple[Held, Held]:
    """What is expected, and what is there of it; `expected` comes in the order of its ext_ids.

    The hashes are equal exactly where nothing differs.
    """
    shall, there = Held(), Held(contacts=found.contacts, events=found.events)
    sums = hashlib.sha256(), hashlib.sha256()
    known: set[str] = set()
    for one in expected:
        known.add(one.ext_id)
        contact, events = found.of(one.ext_id)
        for whole, part in zip(sums, drift.sum_of(one, contact, events, ours), strict=True):
            whole.update(part)
        shall.contacts += 1
        shall.attributes += len(one.attributes)
        shall.lists += len(set(one.list_ids))
        shall.events += len(one.events)
        if contact:
            there.attributes += len((ours.attributes | one.attributes.keys()) & contact.attributes.keys())
            there.lists += len((ours.lists | set(one.list_ids)) & set(contact.list_ids))
    for owner in found.owners():
        if owner not in known:
            sums[1].update(owner.encode())
    shall.hash, there.hash = (one.hexdigest()[:16] for one in sums)
    return shall, there


def _elsewhere(difference: Difference, found: Found) -> Difference:
    """One that is missing may be at another customer's contact."""
    others = found.whose(difference.what)
    if not others:
        return difference
    return msgspec.structs.replace(difference, kind="event_elsewhere", found=others[0])


async def _get(brevo: Brevo, path: str, params: Sequence[tuple[str, str]], type_: type[T]) -> T:
    """One page, in its turn.  What passes by itself is tried again, a full bucket as long as it takes."""
    wait_s, tries = AGAIN_S, 1
    while True:
        await brevo.turn(bucket_of("GET", path))
        result = await brevo.call("GET", path, params=params)
        if isinstance(result, Reply) and result.status == TOO_MANY:
            continue  # the bucket rests (budget.py)
        if isinstance(result, Reply) and result.status == OK:
            return _decoded(result.body, type_)
        passes = not isinstance(result, Reply) or result.status >= SERVER_ERROR
        if not passes or tries == TRIES_MAX:
            stop = why_not(result)
            assert stop is not None  # noqa: S101 - it is no 200
            raise ReadBackError(stop.why, stop.remedy)
        await asyncio.sleep(wait_s)
        wait_s, tries = 2 * wait_s, tries + 1


def _decoded(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.MsgspecError as error:
        raise ReadBackError(
            "Brevo answers with a page that is none", "is TAJO_BREVO_URL right, and no proxy between?"
        ) from error


def _contact(one: _ContactShown) -> Contact:
    attributes = {name: value for name, value in one.attributes.items() if name not in ("EXT_ID", "EMAIL")}
    return Contact(
        id=one.id,
        ext_id=str(one.attributes.get("EXT_ID") or ""),
        email=one.email or "",
        attributes=attributes,
        list_ids=one.listIds,
    )


def _event(one: _EventShown) -> Event | None:
    """None where it is not ours."""
    id_ = (one.event_properties or {}).get(IDEMPOTENCY_KEY)
    if not isinstance(id_, str) or one.contact_id is None:
        return None
    return Event(id=id_, name=one.event_name, time=one.event_date, contact_id=one.contact_id)
