"""Comparing a draft with the book in force, and the plan that follows: page by page, so that memory is bounded.

Whatever is compared again ends the same: a page's lines replace what stood there, in one transaction with what its
customers then were told.
"""

import gzip
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from mapper.book import DUE_MAX, Book
from mapper.customer import Aggregates, contact
from mapper.draft import Draft
from mapper.fold import Page
from mapper.identity import Known
from mapper.plan import (
    Before,
    claims,
    count,
    keeps,
    left,
    line,
    relink,
    since,
    standing,
    successor,
    tells,
    upsert,
)
from mapper.step import Policy, waiting_ids
from shared import command, trace
from shared.config import Config
from shared.plan import Asked, ContactLine, Expected, Plan, Summary


class Comparison:
    """A draft beside the book in force; both stand still meanwhile."""

    def __init__(self, draft: Draft, live: Book, policy: Policy, in_force: Config, replay: str) -> None:
        """`in_force` is taken for what Brevo was told by where the book does not know any more."""
        self._draft = draft
        self._live = live
        self._policy = policy
        self._in_force = in_force
        self._replay = replay
        self._trace = trace.start()

    def all(self) -> Iterator[None]:
        """Compare every customer, a page from one step to the next."""
        with self._draft:
            self._draft.recognise()
            self._draft.forget_lines()
            self._draft.all_compared()
        for page in _pages(self._live):
            with self._draft:
                self._move(page)
            yield
        for page in _pages(self._draft):
            with self._draft:
                self._settle(page)
            yield

    def again(self, touched: Iterable[str]) -> None:
        """Compare these again, whichever of the books has them, and whomever they become or became."""
        names = set(touched)
        with self._draft:
            self._draft.all_compared()
            names |= self._draft.taken_by(names).keys()
            targets = names | set(self._draft.moved(names).values())
            self._draft.stay(names)
            self._draft.unsettle(names)
            for some in _chunks(sorted(names)):
                self._move(self._live.page_of(some))
            targets |= set(self._draft.moved(names).values())
            for some in _chunks(sorted(targets)):
                self._settle(self._draft.page_of(some))

    def changed(self) -> set[str]:
        """Contacts that were told something else, or are called otherwise, since they were compared; and touched ones."""
        before = self._draft.all_told_before()
        found = self._draft.touched()
        for page in _pages(self._live):
            for id_, customer in page.customers.items():
                if before.pop(id_, "") != customer.told:
                    found.add(id_)
        return found | before.keys()

    def become(self, ext_ids: Iterable[str]) -> set[str]:
        """Who these are in the draft; who is nobody there is left out."""
        page = self._live.page_of(list(ext_ids))
        theirs = _by_customer(page)
        owners = self._draft.owners(set(page.known))
        kept = self._draft.exist(set(ext_ids))
        return kept | {successor(theirs[id_], owners) for id_ in theirs.keys() - kept} - {""}

    def _move(self, page: Page) -> None:
        """Of a page of the book in force: which names become another, and which contacts stay behind."""
        told = {id_: one.told for id_, one in page.customers.items() if one.told}
        self._draft.compared(told)
        lost = told.keys() - self._draft.exist(set(told))
        theirs = _by_customer(page)
        owners = self._draft.owners({key for id_ in lost for key in theirs[id_]})
        behind: list[str] = []
        for id_ in sorted(lost):
            if now := successor(theirs[id_], owners):
                self._draft.move(id_, now)
            else:
                behind.append(id_)
        for before in self._told(behind).values():
            self._draft.settle(before.ext_id, "", left(before), None, [])

    def _settle(self, page: Page) -> None:
        """Of a page of the draft: what is done to each, and what each then was told."""
        ids = set(page.customers)
        taken = self._draft.taken_by(ids)
        before = self._told([*ids, *taken])
        channels = self._policy.config.flex.channels
        aggregates, theirs = self._draft.aggregates(ids, channels), _by_customer(page)
        again = self._draft.again(ids)
        config, version = self._policy.config, self._draft.sequence
        for id_, customer in page.customers.items():
            was = [before[name] for name, now in taken.items() if now == id_ and name in before]
            stands, known = standing(before.get(id_), was), aggregates.get(id_)
            customer.told, customer.mailed = "", False
            one: ContactLine | None = None
            message = None
            if known is not None or stands.before is not None:  # else no contact is invented
                wanted = contact(customer, known or Aggregates(), theirs[id_], config)
                one = line(id_, stands, wanted, again=id_ in again)
                customer.told = f"{config.hash}/{wanted.hash}"
                customer.mailed = stands.mailed or wanted.email is not None
                if one is not None and tells(one):
                    made = upsert(one, wanted, config.hash, version=version, replay=self._replay)
                    message = command.to_message(made, self._trace, past=True)
            relinks = [
                relink(name, id_, over=over, version=version, replay=self._replay)
                for name, over in stands.was
            ]
            self._draft.settle(
                id_,
                customer.told,
                one,
                message,
                [(one, command.to_message(one, self._trace)) for one in relinks],
            )
        self._draft.write_customers(page.customers.values())

    def _told(self, ext_ids: Iterable[str]) -> dict[str, Before]:
        """What Brevo was told of these, by the mapping each was told by."""
        page = self._live.page_of(list(ext_ids))
        mappings, theirs = self._live.mappings(), _by_customer(page)
        by_hash: dict[str, list[str]] = {}
        for id_, customer in page.customers.items():
            if customer.told:
                by_hash.setdefault(customer.told.partition("/")[0], []).append(id_)
        found: dict[str, Before] = {}
        for hash_, ids in by_hash.items():
            config = mappings.get(hash_, self._in_force)
            aggregates = self._live.aggregates(ids, config.flex.channels)
            for id_ in ids:
                customer = page.customers[id_]
                told = contact(customer, aggregates.get(id_, Aggregates()), theirs[id_], config)
                found[id_] = Before(id_, told, customer.mailed)
        return found


def plan(draft: Draft, asked: Asked, *, mapping: str, before: str) -> Plan:
    """The plan of a draft that was compared."""
    kept: dict[tuple[str, str], set[str]] = {}
    for one in draft.lines():
        for item in keeps(one).items():
            kept.setdefault(item, set()).add(one.ext_id)
    contacts: list[ContactLine] = []
    summary = Summary()
    for one in draft.lines():
        conflicts = tuple(
            name
            for name, value in claims(one).items()
            if kept.get((name, value), set()) - {one.ext_id, *one.was}
        )
        contacts.append(msgspec.structs.replace(one, conflicts=conflicts) if conflicts else one)
        summary = count(summary, contacts[-1])
    events = tuple(draft.event_lines(since(asked), _waiting(draft)))
    customers = draft.customers_told()
    acting = summary.create + summary.change + summary.again + summary.keep
    return Plan(
        id=asked.id,
        mapping=mapping,
        mapping_before=before,
        sequence=draft.sequence,
        asked=asked,
        summary=msgspec.structs.replace(
            summary,
            customers=customers,
            unchanged=customers - acting,
            **{
                action: sum(one.action == action for one in events) for action in ("send", "suppress", "sent")
            },
        ),
        contacts=tuple(contacts),
        events=events,
    )


def write_expected(draft: Draft, asked: Asked, config: Config, path: Path) -> None:
    """What Brevo shall hold of each customer, as shared.plan.Expected says, into a file."""
    events = itertools.groupby(draft.events_by_customer(since(asked)), key=lambda row: row[0])
    ext_id, rows = next(events, ("", iter(())))
    with gzip.GzipFile(path, "wb", mtime=0) as out:
        for page in _pages(draft):
            aggregates, theirs = draft.aggregates(page.customers, config.flex.channels), _by_customer(page)
            for id_ in sorted(page.customers):
                customer = page.customers[id_]
                told: list[tuple[str, str, str]] = []
                while ext_id and ext_id <= id_:
                    told = [(event, name, time) for _, event, name, time in rows]
                    told = told if ext_id == id_ else []
                    ext_id, rows = next(events, ("", iter(())))
                if not customer.told:
                    continue
                wanted = contact(customer, aggregates.get(id_, Aggregates()), theirs[id_], config)
                shall = Expected(
                    ext_id=id_,
                    email=wanted.email,
                    attributes=wanted.attributes,
                    list_ids=wanted.list_ids,
                    events=tuple(told),
                )
                out.write(msgspec.json.encode(shall) + b"\n")


def _waiting(draft: Draft) -> set[str]:
    """Ids of events that wait in the draft, to be told by the mapper that has it."""
    return {id_ for one in draft.waiting() for ids in waiting_ids(one).values() for id_ in ids}


def _pages(book: Book) -> Iterator[Page]:
    after = ""
    while (page := book.customers(after)).customers:
        yield page
        after = max(page.customers)


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + DUE_MAX] for start in range(0, len(ids), DUE_MAX))


def _by_customer(page: Page) -> dict[str, dict[str, Known]]:
    """Each customer's own identifiers: a contact is made of these alone."""
    theirs: dict[str, dict[str, Known]] = {id_: {} for id_ in page.customers}
    for key, one in page.known.items():
        theirs.setdefault(one.customer, {})[key] = one
    return theirs
