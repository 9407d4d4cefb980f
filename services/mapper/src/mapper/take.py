"""Fold what was heard into the book, and say what follows: the part every way of mapping shares.

The caller opens the transaction, and puts out what is returned in the same one.
"""

from collections.abc import Sequence

from mapper.book import Book
from mapper.customer import learn
from mapper.fold import Page, fold, settle, upserts
from mapper.heard import Heard
from mapper.made import Made
from mapper.step import Policy
from shared.command import Command


def take(
    book: Book,
    events: Sequence[tuple[Heard, str]],
    policy: Policy,
    *,
    now_ms: int,
    sequence: int,
    contacts: bool = True,
) -> Made:
    """Fold events, each with its trace, up to and with a TWILIO sequence; without `contacts`, `retell` follows."""
    page = book.page([heard for heard, _ in events])
    fold(page, events, policy, now_ms=now_ms)
    book.note_agents({heard.agent for heard, _ in events if heard.agent})
    book.sequence = sequence
    return close(book, page, policy, now_ms=now_ms, contacts=contacts)


def look(book: Book, policy: Policy, *, now_ms: int, contacts: bool = True) -> Made:
    """Let go what has waited long enough, though nothing more was heard."""
    return close(book, book.due(now_ms), policy, now_ms=now_ms, contacts=contacts)


def retell(book: Book, policy: Policy, *, after: str) -> tuple[list[Command], str]:
    """Of the next customers by id, those of whom Brevo was not told as they are; and where to go on, empty at the end."""
    page = book.customers(after)
    aggregates = book.aggregates(page.touched, policy.config.flex.channels)
    made = upserts(page, aggregates, policy, version=book.sequence)
    book.write_customers(page.customers.values())
    return [command for command, _ in made], max(page.customers, default="")


def close(book: Book, page: Page, policy: Policy, *, now_ms: int, contacts: bool) -> Made:
    """Settle what has changed in a page of the book, write it, and say what follows."""
    settle(page, policy, now_ms=now_ms, version=book.sequence)
    book.write(page)
    for id_ in page.regrouped:
        customer = page.customers[id_]
        customer.fields = {}
        for interaction in book.interactions_of(id_):
            learn(customer, interaction)
    if not contacts:
        book.write_customers(page.customers[id_] for id_ in page.touched)
        return Made(list(page.tracks), [])
    aggregates = book.aggregates(page.touched, policy.config.flex.channels)
    changed = upserts(page, aggregates, policy, version=book.sequence)
    book.write_customers(page.customers[id_] for id_ in page.touched)
    relinks = [(relink, page.touched.get(relink.ext_id, "")) for relink in page.relinks]
    return Made([*relinks, *changed, *page.tracks], page.nobody)
