"""Taking somebody out of the book, so that it is as if the log had never held them.

A customer goes with their interactions, the links of those, and the identifiers that are theirs alone.  A phone that
others were seen with too stays, and is known anew by what of it is left: it may thereby become one of those others'.
"""

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from mapper.book import Book
from mapper.customer import Customer
from mapper.draft import DRAFTED
from mapper.fold import Page
from mapper.identity import BESIDE_MAX, Known, customer_id, is_phone, note
from mapper.interaction import Interaction
from mapper.made import Made
from mapper.step import Policy
from mapper.take import close
from shared.tombstone import entity

Has = Callable[[str], bool]
"""Whether a name is one of those that were given, or of the tombstone."""


class Person(Struct):
    """Who is to be forgotten, as the book knows them."""

    customers: set[str] = set()
    interactions: dict[str, Interaction] = {}  # by key
    identifiers: dict[str, Known] = {}  # theirs; phones that stay with others too
    staying: set[str] = (
        set()
    )  # phones of theirs, and in their interactions, that others were seen with as well

    def names(self) -> set[str]:
        """All that says who they are: identifiers and links, and what Brevo's contact was or may have been called."""
        alone = self.identifiers.keys() - self.staying
        found = {*alone, *map(customer_id, alone), *self.customers}
        for one in self.interactions.values():
            found |= one.links | one.tasks.keys() | one.conversations.keys()
            found |= {entity(key) for key in (*one.told, *one.waiting)} - {""}
        return found


def find(book: Book, has: Has) -> Person:
    """Whom these names mean.  Looks at every name in the book: a second or two for a million."""
    sql = book.connection
    ids = {id_ for (id_,) in sql.execute("SELECT id FROM customer") if has(id_)}
    ids |= {id_ for key, id_ in sql.execute("SELECT key, customer FROM identifier") if has(key)}
    keys = [key for sid, key in sql.execute("SELECT sid, key FROM link") if has(sid)]
    owner = """SELECT customer FROM interaction JOIN identifier ON identifier.key = anchor
        WHERE interaction.key = ?"""
    ids |= {id_ for key in keys for (id_,) in sql.execute(owner, (key,))}
    return _person(book, ids)


def _person(book: Book, ids: set[str]) -> Person:
    page = book.page_of(sorted(ids))
    person = Person(ids, identifiers=page.known)
    for id_ in ids:
        person.interactions.update({one.key: one for one in book.interactions_of(id_)})
    phones = {
        key
        for key in (*page.known, *(key for one in person.interactions.values() for key in one.identifiers))
        if is_phone(key)
    }
    person.staying = {phone for phone in phones if any(True for _ in _others(book, phone, person))}
    return person


def _others(book: Book, phone: str, person: Person) -> Iterator[Interaction]:
    """Interactions of others that a phone was seen in."""
    sql = "SELECT body FROM identifier WHERE key = ?"
    row = book.connection.execute(sql, (phone,)).fetchone()
    beside = book.decode_known(row[0]).beside if row else set[str]()
    if len(beside) < BESIDE_MAX:
        anchors = sorted({phone, *beside})
        marks = ", ".join("?" * len(anchors))
        among = f"SELECT key, body FROM interaction WHERE anchor IN ({marks})"  # noqa: S608 - question marks
        rows = book.connection.execute(among, anchors)
    else:  # not all that it was seen with is kept
        rows = book.connection.execute("SELECT key, body FROM interaction")
    for key, body in rows:
        if key not in person.interactions and phone in (one := book.decode_interaction(body)).identifiers:
            yield one


def erase(book: Book, person: Person, policy: Policy, *, now_ms: int) -> Made:
    """Take them out, and say what follows for those whose phone was theirs too.  The caller opens the transaction."""
    sql = book.connection
    for key, one in person.interactions.items():
        sql.execute("DELETE FROM interaction WHERE key = ?", (key,))
        sql.executemany("DELETE FROM link WHERE sid = ?", ((sid,) for sid in one.links))
    sql.executemany("DELETE FROM customer WHERE id = ?", ((id_,) for id_ in person.customers))
    sql.executemany("DELETE FROM backlog WHERE ext_id = ?", ((id_,) for id_ in person.customers))
    for (table,) in sql.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if table in DRAFTED:  # the book in force was a draft, and needs them no more
            sql.execute(f"DELETE FROM {table}")  # noqa: S608 - one of ours
    _delete_identifiers(book, person.identifiers.keys() - person.staying)
    page = _without(book, person)
    return close(book, page, policy, now_ms=now_ms, contacts=True)


def _delete_identifiers(book: Book, keys: Iterable[str]) -> None:
    book.connection.executemany("DELETE FROM identifier WHERE key = ?", ((key,) for key in keys))


def _without(book: Book, person: Person) -> Page:
    """The phones that stay, known by what is left of them."""
    known: dict[str, Known] = {}
    for phone in sorted(person.staying):
        seen: dict[str, Known] = {}
        for one in _others(book, phone, person):
            note(seen, one.identifiers)
        known[phone] = seen[phone]
    page = book.around(known)
    for phone, left in known.items():
        left.customer = page.known[phone].customer
        page.known[phone] = left
        page.noted.add(phone)
        page.customers.setdefault(left.customer, Customer(left.customer))
        page.regrouped.add(left.customer)
    return page
