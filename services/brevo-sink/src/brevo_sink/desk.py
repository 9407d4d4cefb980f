"""What is in hand: commands heard and not yet ended, by contact.  Pure.

Of a contact's upserts only the newest is worth sending.  Its events wait until it exists, and go in the order
they were heard.  Nothing is done twice at once for one contact, and one that waits holds up no other.
"""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from shared.command import Command, ContactUpsert, EventTrack

LINGER_S = 2.0  # that an event waits for more to go with it, while there is a backlog


class Item(Struct, eq=False):
    """A command in hand, with the message it came in."""

    command: Command
    position: int  # where in BREVO it was said, first: of two with one version the later is the newer
    message: Any  # settles it
    trace: str = ""
    tries: int = 0
    without: frozenset[str] = frozenset()  # identifiers Brevo refused
    foreign_name: str = ""  # of an upsert: how somebody else called the contact
    past: bool = False  # what happens now goes first
    singly: bool = False  # of an upsert: not by import any more
    heard: float = 0.0  # by the monotonic clock
    stored_ms: int = 0  # when the log stored what released it; 0 where that is not measured
    now_called: str = ""  # the contact it is about, where that is another than when it was made
    said_again: int = 0  # its sequence in BREVO, where it was a dead letter and a person said it again

    @property
    def sequence(self) -> int:
        """Its own in BREVO."""
        return self.said_again or self.position

    @property
    def ext_id(self) -> str:
        """The contact it is about."""
        return self.now_called or self.command.ext_id


class _Contact(Struct, eq=False):
    known: bool  # Brevo has it
    upsert: Item | None = None
    telling: Item | None = None  # the upsert that is taken
    events: deque[Item] = deque()
    busy: bool = False
    not_before: float = 0.0

    @property
    def now(self) -> bool:
        """Whether something of what happens now waits for it."""
        upsert, events = self.upsert, self.events
        return (upsert is not None and not upsert.past) or (bool(events) and not events[0].past)

    def sort(self) -> None:
        """Events of what happens now before those of the past, each in their order."""
        if len({item.past for item in self.events}) > 1:
            self.events = deque(sorted(self.events, key=lambda item: item.past))


class Desk:
    """Holds the items until they are taken, and knows which contacts are busy."""

    def __init__(self, known: Callable[[str], bool]) -> None:
        self._known = known  # whether the ledger says that Brevo has a contact
        self._contacts: dict[str, _Contact] = {}
        self._upserts: deque[str] = deque()  # contacts with an upsert, the longest waiting first
        self._events: deque[str] = deque()  # contacts with events
        self._partial_at = float("-inf")  # when a batch was taken last that was not full
        self._blocked: Counter[str] = Counter()  # contacts being renamed

    def __len__(self) -> int:
        return sum((c.upsert is not None) + len(c.events) for c in self._contacts.values())

    def add(self, item: Item) -> Item | None:
        """Put an item on the desk.  Returns the upsert that is thereby superseded, which may be this one."""
        contact = self._contact(item.ext_id)
        if isinstance(item.command, EventTrack):
            if not contact.events:
                self._events.append(item.ext_id)
            contact.events.append(item)
            contact.sort()
            return None
        if contact.telling is not None and newer_than(contact.telling, item):
            return item  # a killed sink's, heard again: an older one never goes after a newer
        return self._lay(contact, item)

    def back(self, items: Iterable[Item], *, not_before: float) -> list[Item]:
        """Put items back, first in their order, for later; `done` frees their contacts.  Returns what is superseded."""
        superseded: list[Item] = []
        for item in reversed(list(items)):
            contact = self._contact(item.ext_id)
            contact.not_before = not_before
            if isinstance(item.command, EventTrack):
                if not contact.events:
                    self._events.append(item.ext_id)
                contact.events.appendleft(item)
                contact.sort()
            else:
                contact.telling = None
                if (old := self._lay(contact, item)) is not None:
                    superseded.append(old)
        return superseded

    def _lay(self, contact: _Contact, item: Item) -> Item | None:
        """The newer of two upserts stays; returns the other."""
        if contact.upsert is None:
            self._upserts.append(item.ext_id)
            contact.upsert = item
            return None
        item.past = contact.upsert.past = item.past and contact.upsert.past
        if newer_than(contact.upsert, item):
            return item
        older, contact.upsert = contact.upsert, item
        return older

    def take_upsert(self, now: float) -> Item | None:
        """The upsert that may go now: first those something of now waits for, then the longest waiting.

        Its contact is busy until `done`.
        """
        may = (ext_id for ext_id in self._upserts if self._may(ext_id, self._contacts[ext_id], now))
        if (longest := next(may, None)) is None:
            return None
        # Not a list of all who may: thousands wait in a backlog, and mostly the first of them is one of now.
        first = (ext_id for ext_id in itertools.chain([longest], may) if self._contacts[ext_id].now)
        ext_id = next(first, longest)
        self._upserts.remove(ext_id)
        contact = self._contacts[ext_id]
        contact.telling, contact.upsert, contact.busy = contact.upsert, None, True
        return contact.telling

    def take_past(
        self,
        now: float,
        least: int,
        fits: Callable[[Item], bool],
        fitting: Callable[[Sequence[Item]], int],
    ) -> list[Item]:
        """At least so many upserts of the past with the same lists, that nothing of now waits for; else none.

        `fits` says of one whether it may go so, `fitting` how many from the first on.  Their contacts are busy until `done`.
        """
        found: dict[tuple[int, ...], list[Item]] = {}
        if len(self._upserts) < least:
            return []
        for ext_id in self._upserts:
            contact = self._contacts[ext_id]
            item = contact.upsert
            if item is None or item.singly or contact.now or not self._may(ext_id, contact, now):
                continue
            if isinstance(item.command, ContactUpsert) and fits(item):
                found.setdefault(item.command.list_ids, []).append(item)
        most = max(found.values(), key=len, default=[])
        taken = most[: fitting(most)] if len(most) >= least else []
        for item in taken:
            contact = self._contacts[item.ext_id]
            contact.telling, contact.upsert, contact.busy = item, None, True
        ids = {item.ext_id for item in taken}
        self._upserts = deque(ext_id for ext_id in self._upserts if ext_id not in ids)
        return taken

    def take_events(self, now: float, most: int) -> list[Item]:
        """Events that may go now, at most so many, those of now first; their contacts are busy until `done`."""
        taken: list[Item] = []
        may = [ext_id for ext_id in self._events if self._may_track(ext_id, now)]
        may.sort(key=lambda ext_id: not self._contacts[ext_id].now)
        for ext_id in may:
            if len(taken) == most:
                break
            contact = self._contacts[ext_id]
            while contact.events and len(taken) < most:
                taken.append(contact.events.popleft())
            contact.busy = True
            self._events.remove(ext_id)
            if contact.events:
                self._events.append(ext_id)
        if 0 < len(taken) < most:
            self._partial_at = now
        return taken

    def upsert_ready(self, now: float) -> bool:
        """Whether there is an upsert that may go now."""
        return any(self._may(id_, self._contacts[id_], now) for id_ in self._upserts)

    def events_ready(self, now: float, full: int) -> bool:
        """Whether there are events that may go now, and should: at once while few wait, else in full batches.

        While so many wait that they would fill one, what may go waits for more, LINGER_S at most: then calls are short.
        """
        ready, waiting = [0, 0], [0, 0]  # of now, of the past
        for ext_id in self._events:
            contact = self._contacts[ext_id]
            past = not contact.now
            waiting[past] += len(contact.events)
            if self._may_track(ext_id, now):
                ready[past] += len(contact.events)
        behind = waiting[0] if ready[0] else sum(waiting)
        return sum(ready) >= full or (
            sum(ready) > 0 and (behind < full or now >= self._partial_at + LINGER_S)
        )

    def done(self, ext_ids: Iterable[str], *, known: bool | None = None) -> None:
        """These contacts are free again; `known` says what we learned of whether Brevo has them."""
        for ext_id in ext_ids:
            contact = self._contacts.get(ext_id)
            if contact is None:
                continue
            contact.busy, contact.telling = False, None
            contact.known = contact.known if known is None else known
            if contact.upsert is None and not contact.events:
                del self._contacts[ext_id]

    def stranded(self, before: float) -> list[Item]:
        """Take away events that wait since `before` for a contact of which nobody told: its upsert came first, or never."""
        items: list[Item] = []
        for ext_id in list(self._events):
            contact = self._contacts[ext_id]
            waits = (
                not contact.known
                and contact.upsert is None
                and not contact.busy
                and ext_id not in self._blocked
            )
            if waits and contact.events and contact.events[-1].heard <= before:
                items += self.orphan(ext_id)
                self.done([ext_id])
        return items

    def block(self, *ext_ids: str) -> None:
        """Nothing more of these contacts is taken until they are freed: they are renamed."""
        self._blocked.update(ext_ids)

    def free(self, *ext_ids: str) -> None:
        """As often as blocked."""
        self._blocked.subtract(ext_ids)
        self._blocked = +self._blocked

    def busy(self, *ext_ids: str) -> bool:
        """Whether a call is in flight for any of these contacts."""
        return any(ext_id in self._contacts and self._contacts[ext_id].busy for ext_id in ext_ids)

    def rename(self, was: str, ext_id: str, *, before: int) -> list[Item]:
        """What is on the desk for one contact is another's from here on.  Returns the upsert that has thereby ended.

        But what was said from the position `before` on: a third gets the name there.
        """
        old = self._contacts.get(was)
        if old is None:
            return []
        new = self._contact(ext_id)
        new.known, old.known = new.known or old.known, False
        moved = [item for item in old.events if item.position < before]
        if moved:
            old.events = deque(item for item in old.events if item.position > before)
            if not old.events:
                self._events.remove(was)
            if not new.events:
                self._events.append(ext_id)
            for item in moved:
                item.now_called = ext_id
            new.events = deque(sorted([*moved, *new.events], key=lambda item: (item.past, item.position)))
        ended = old.upsert if old.upsert is not None and old.upsert.position < before else None
        if ended is not None:
            old.upsert = None
            self._upserts.remove(was)
        self.done([was])
        return [ended] if ended is not None else []

    def drop(self, ext_id: str, *, before: int) -> list[Item]:
        """The contact is gone: take away what was said of it before this position.  Brevo does not have it any more."""
        contact = self._contacts.get(ext_id)
        if contact is None:
            return []
        contact.known = False
        items = [item for item in contact.events if item.position < before]
        if items:
            contact.events = deque(item for item in contact.events if item.position > before)
            if not contact.events:
                self._events.remove(ext_id)
        if contact.upsert is not None and contact.upsert.position < before:
            items.append(contact.upsert)
            contact.upsert = None
            self._upserts.remove(ext_id)
        self.done([ext_id])
        return items

    def _may_track(self, ext_id: str, now: float) -> bool:
        contact = self._contacts[ext_id]
        return contact.known and contact.upsert is None and self._may(ext_id, contact, now)

    def _may(self, ext_id: str, contact: _Contact, now: float) -> bool:
        return not contact.busy and contact.not_before <= now and ext_id not in self._blocked

    def orphan(self, ext_id: str) -> list[Item]:
        """Take away the events of a contact that Brevo refused and does not have."""
        contact = self._contacts.get(ext_id)
        if contact is None or contact.known or contact.upsert is not None:
            return []
        items = list(contact.events)
        contact.events.clear()
        if items:
            self._events.remove(ext_id)
        return items

    def _contact(self, ext_id: str) -> _Contact:
        contact = self._contacts.get(ext_id)
        if contact is None:
            contact = self._contacts[ext_id] = _Contact(known=self._known(ext_id), events=deque())
        return contact


def newer_than(one: Item, other: Item) -> bool:
    """Whether of two upserts of a contact the first is the newer."""
    return version(one) > version(other)


def version(item: Item) -> tuple[int, int]:
    """What orders a contact's upserts."""
    assert isinstance(item.command, ContactUpsert)  # noqa: S101 - only upserts have one
    return item.command.version, item.position
