"""One batch of what was heard, folded into the part of the book it concerns.  Pure: the page is given and changed.

The page holds every interaction, identifier and customer the batch can touch; the book loads it before and
writes it after, in one transaction.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from mapper.customer import Aggregates, Contact, Customer, Owner, contact, decide, learn, own
from mapper.heard import Heard
from mapper.interaction import Interaction, join
from mapper.step import Policy, hear, release
from shared.command import ContactUpsert, EventTrack


class Page(Struct):
    """A part of the book, and what has changed in it."""

    links: dict[str, str]  # sid → key of its interaction
    interactions: dict[str, Interaction]
    owners: dict[str, Owner]
    customers: dict[str, Customer]
    changed: set[str] = set()  # keys of interactions
    joined: dict[str, str] = {}  # key of an interaction that is no more → key of the one it is part of
    touched: dict[str, str] = {}  # customer → the trace that touched it last
    tracks: list[tuple[EventTrack, str]] = []  # each with its trace
    nobody: list[str] = []  # command ids given up: no_identity


def fold(page: Page, events: Iterable[tuple[Heard, str]], policy: Policy, *, now_ms: int) -> None:
    """Join the events, each with its trace, to their interactions.  Then `settle`."""
    for heard, trace in events:
        interaction = _find(page, heard)
        hear(interaction, heard, policy, now_ms=now_ms, trace=trace)
        page.changed.add(interaction.key)
        if interaction.customer:
            page.touched[interaction.customer] = trace


def _find(page: Page, heard: Heard) -> Interaction:
    """The interaction that the event's links name; several that it links become one."""
    keys = list(dict.fromkeys(page.links[sid] for sid in heard.links if sid in page.links))
    if keys:
        interaction = page.interactions[keys[0]]
        for key in keys[1:]:
            _absorb(page, interaction, page.interactions.pop(key))
    else:
        interaction = Interaction(key=heard.links[0])
        page.interactions[interaction.key] = interaction
    for sid in heard.links:
        page.links[sid] = interaction.key
    return interaction


def _absorb(page: Page, into: Interaction, other: Interaction) -> None:
    join(into, other)
    for sid in other.links:
        page.links[sid] = into.key
    page.changed.discard(other.key)
    page.joined[other.key] = into.key
    if other.customer:
        page.touched.setdefault(other.customer, "")
        into.customer = into.customer or other.customer


def settle(page: Page, policy: Policy, *, now_ms: int) -> None:
    """Decide whose the changed interactions are, and let go what may go."""
    for key in sorted(page.changed, key=lambda key: (page.interactions[key].first_ms, key)):
        interaction = page.interactions[key]
        owner = decide(interaction.identifiers, page.owners, page.customers)
        if owner:
            before, interaction.customer = interaction.customer, owner
            customer = page.customers.setdefault(owner, Customer(owner))
            own(customer, interaction.identifiers, page.owners, page.customers)
            learn(customer, interaction)
            page.touched.setdefault(owner, "")
            if before != owner and before:
                page.touched.setdefault(before, "")
        out = release(interaction, policy, now_ms=now_ms)
        page.tracks += out.commands
        page.nobody += out.nobody
        for track, trace in out.commands:
            page.touched[track.ext_id] = page.touched[track.ext_id] or trace


def upserts(
    page: Page, aggregates: Mapping[str, Aggregates], policy: Policy, *, version: int
) -> list[tuple[ContactUpsert, str]]:
    """What Brevo is told of the customers touched, each with its trace; nothing where nothing changed."""
    commands: list[tuple[ContactUpsert, str]] = []
    for id_, trace in page.touched.items():
        customer, known = page.customers[id_], aggregates.get(id_)
        if known is None:  # nothing in an enabled channel: no contact is invented
            continue
        wanted = contact(customer, known, page.owners, policy.config)
        told = f"{policy.config.hash}/{wanted.hash}"
        if told != customer.told:
            customer.told = told
            commands.append((_upsert(id_, wanted, policy, version), trace))
    return commands


def _upsert(ext_id: str, wanted: Contact, policy: Policy, version: int) -> ContactUpsert:
    return ContactUpsert(
        # Events delivered again after newer ones change a contact under the same version, hence the content's hash.
        id=f"{ext_id}/{version}/{policy.config.hash}/{wanted.hash}",
        ext_id=ext_id,
        version=version,
        mapping=policy.config.hash,
        email=wanted.email,
        attributes=wanted.attributes,
        list_ids=wanted.list_ids,
    )
