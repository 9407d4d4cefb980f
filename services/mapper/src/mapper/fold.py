"""One batch of what was heard, folded into the part of the book it concerns.  Pure: the page is given and changed.

The page holds every interaction, identifier and customer the batch can touch; the book loads it before and
writes it after, in one transaction.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from mapper.customer import Aggregates, Contact, Customer, contact, learn
from mapper.heard import Heard
from mapper.identity import Known, anchor, note, owners, successors
from mapper.interaction import Interaction, join
from mapper.step import Policy, hear, release
from shared.command import ContactRelink, ContactUpsert, EventTrack


class Page(Struct):
    """A part of the book, and what has changed in it."""

    links: dict[str, str]  # sid → key of its interaction
    interactions: dict[str, Interaction]
    known: dict[str, Known]  # identifiers
    whole: set[str]  # customers all of whose identifiers are here
    customers: dict[str, Customer]
    changed: set[str] = set()  # keys of interactions
    linked: set[str] = set()  # sids that had no interaction before, or another
    noted: set[str] = set()  # identifiers
    joined: dict[str, str] = {}  # key of an interaction that is no more → key of the one it is part of
    touched: dict[str, str] = {}  # customer → the trace that touched it last
    regrouped: set[str] = set()  # customers whose interactions are others than before: learn them anew
    gone: dict[str, str] = {}  # customer that is no more → who it is now
    relinks: list[ContactRelink] = []
    tracks: list[tuple[EventTrack, str]] = []  # each with its trace
    nobody: list[str] = []  # command ids given up: no_identity

    def owner(self, interaction: Interaction) -> str:
        """Whose an interaction is; an empty text while nobody's."""
        return self.known[interaction.anchor].customer if interaction.anchor in self.known else ""

    def touch(self, customer: str, trace: str = "") -> None:
        """Something about a customer may have changed."""
        if customer:
            self.touched[customer] = trace or self.touched.get(customer, "")


def fold(page: Page, events: Iterable[tuple[Heard, str]], policy: Policy, *, now_ms: int) -> None:
    """Join the events, each with its trace, to their interactions.  Then `settle`."""
    for heard, trace in events:
        interaction = _find(page, heard)
        hear(interaction, heard, policy, now_ms=now_ms, trace=trace)
        page.changed.add(interaction.key)
        page.touch(page.owner(interaction), trace)


def _find(page: Page, heard: Heard) -> Interaction:
    """The interaction that the event's links name; several that it links become one."""
    keys = list(dict.fromkeys([page.links[sid] for sid in heard.links if sid in page.links]))
    if keys:
        interaction = page.interactions[keys[0]]
        for key in keys[1:]:
            _absorb(page, interaction, page.interactions.pop(key))
    else:
        interaction = Interaction(key=heard.links[0])
        page.interactions[interaction.key] = interaction
    for sid in heard.links:
        _link(page, sid, interaction.key)
    return interaction


def _link(page: Page, sid: str, key: str) -> None:
    if page.links.get(sid) != key:
        page.links[sid] = key
        page.linked.add(sid)


def _absorb(page: Page, into: Interaction, other: Interaction) -> None:
    join(into, other)
    for sid in other.links:
        _link(page, sid, into.key)
    page.changed.discard(other.key)
    page.joined[other.key] = into.key
    if other.anchor != into.anchor:  # what the other's customer learned of it, it may have to forget
        page.regrouped.add(page.owner(other))
    into.anchor = into.anchor or other.anchor


def settle(page: Page, policy: Policy, *, now_ms: int, version: int) -> None:
    """Decide whose the changed interactions are, and let go what may go."""
    ordered = sorted(page.changed, key=lambda key: (page.interactions[key].first_ms, key))
    moved: set[str] = set()  # identifiers that said, or now say, whose an interaction is
    for key in ordered:
        interaction = page.interactions[key]
        note(page.known, interaction.identifiers)
        page.noted.update(interaction.identifiers)
        before, interaction.anchor = interaction.anchor, anchor(interaction.identifiers)
        if before and before != interaction.anchor:
            moved |= {before, interaction.anchor}
    page.regrouped |= {page.known[key].customer for key in moved}
    _identify(page, version)
    page.regrouped |= {page.known[key].customer for key in moved}
    for key in ordered:
        interaction = page.interactions[key]
        owner = page.owner(interaction)
        if owner:
            learn(page.customers.setdefault(owner, Customer(owner)), interaction)
            page.touch(owner)
        out = release(interaction, owner, policy, now_ms=now_ms)
        page.tracks += out.commands
        page.nobody += out.nobody
        for track, trace in out.commands:
            page.touched[track.ext_id] = page.touched[track.ext_id] or trace
    page.regrouped = {page.gone.get(id_, id_) for id_ in page.regrouped} - {""}
    for id_ in sorted(page.regrouped):
        page.touch(id_)


def _identify(page: Page, version: int) -> None:
    """Give every identifier its customer; customers that are no more are told to Brevo under their new name."""
    found = owners(page.known, page.whole)
    page.gone = successors(page.known, found)
    for key, id_ in found.items():
        one = page.known[key]
        if one.customer != id_:
            page.regrouped |= {one.customer, id_} if one.customer else set()
            one.customer = id_
            page.noted.add(key)
            page.customers.setdefault(id_, Customer(id_))
    for was, now in sorted(page.gone.items()):
        old, new = page.customers.pop(was, Customer(was)), page.customers.setdefault(now, Customer(now))
        page.touch(now, page.touched.pop(was, ""))
        if old.told:
            page.relinks.append(
                ContactRelink(
                    id=f"{was}/{now}/{version}", ext_id=now, was=was, version=version,
                    over=old.mailed and not new.mailed,
                )
            )  # fmt: skip
            new.told = ""  # an upsert follows, whatever was told
            new.mailed |= old.mailed


def upserts(
    page: Page, aggregates: Mapping[str, Aggregates], policy: Policy, *, version: int
) -> list[tuple[ContactUpsert, str]]:
    """What Brevo is told of the customers touched, each with its trace; nothing where nothing changed."""
    commands: list[tuple[ContactUpsert, str]] = []
    theirs: dict[str, dict[str, Known]] = {
        id_: {} for id_ in page.touched
    }  # else each would look at all there are
    for key, one in page.known.items():
        if one.customer in theirs:
            theirs[one.customer][key] = one
    for id_, trace in page.touched.items():
        customer, known = page.customers[id_], aggregates.get(id_)
        if known is None and not customer.told:  # nothing in an enabled channel: no contact is invented
            continue
        wanted = contact(customer, known or Aggregates(), theirs[id_], policy.config)
        told = f"{policy.config.hash}/{wanted.hash}"
        if told != customer.told:
            customer.told, customer.mailed = told, customer.mailed or wanted.email is not None
            commands.append((_upsert(id_, wanted, told, policy, version), trace))
    return commands


def _upsert(ext_id: str, wanted: Contact, told: str, policy: Policy, version: int) -> ContactUpsert:
    return ContactUpsert(
        # Events delivered again after newer ones change a contact under the same version, hence the content's hash.
        id=f"{ext_id}/{version}/{told}",
        ext_id=ext_id,
        version=version,
        mapping=policy.config.hash,
        email=wanted.email,
        attributes=wanted.attributes,
        list_ids=wanted.list_ids,
    )
