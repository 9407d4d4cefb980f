"""The desk as a state machine: nothing is lost, no event before its contact, order per contact, one call at a time."""

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from brevo_sink.desk import Desk, Item, version
from shared.command import ContactUpsert, EventTrack

CONTACTS = ("tajo-a", "tajo-b")


class AtTheDesk(RuleBasedStateMachine):
    @initialize(known=some.sets(some.sampled_from(CONTACTS)))
    def sit_down(self, known):
        self.known = set(known)
        self.desk = Desk(self.known.__contains__)  # the ledger learns too
        self.position = 0
        self.now = 0.0
        self.open: set[str] = set()  # ids in hand
        self.ended: list[str] = []
        self.upserts: dict[str, Item] = {}  # in flight, by contact
        self.events: list[list[Item]] = []  # in flight
        self.told = dict.fromkeys(CONTACTS, (0, 0))  # the version Brevo has
        self.order: dict[tuple[str, bool], list[int]] = {
            (contact, past): [] for contact in CONTACTS for past in (True, False)
        }

    def item(self, command, *, past: bool = False) -> Item:
        self.position += 1
        self.open.add(command.id)
        return Item(command, self.position, None, past=past)

    def end(self, items):
        for item in items:
            assert item.command.id in self.open
            self.open.remove(item.command.id)
            self.ended.append(item.command.id)

    def busy(self) -> set[str]:
        return {*self.upserts, *(item.command.ext_id for batch in self.events for item in batch)}

    @rule(contact=some.sampled_from(CONTACTS), number=some.integers(1, 3), past=some.booleans())
    def hear_upsert(self, contact, number, past=False):
        command = ContactUpsert(id=f"u{self.position}", ext_id=contact, version=number, mapping="m")
        new = self.item(command, past=past)
        superseded = new if version(new) <= self.told[contact] else self.desk.add(new)
        if superseded:
            self.end([superseded])

    @rule(contact=some.sampled_from(CONTACTS), past=some.booleans())
    def hear_event(self, contact, past):
        command = EventTrack(id=f"e{self.position}", ext_id=contact, name="X", time="")
        assert self.desk.add(self.item(command, past=past)) is None

    @rule()
    def take_upsert(self):
        item = self.desk.take_upsert(self.now)
        if item:
            assert item.command.ext_id not in self.busy()
            self.upserts[item.command.ext_id] = item

    @precondition(lambda self: self.upserts)
    @rule(data=some.data(), how=some.sampled_from(["done", "refused", "later"]))
    def upsert_ends(self, data, how):
        contact = data.draw(some.sampled_from(sorted(self.upserts)))
        item = self.upserts.pop(contact)
        if how == "done":
            assert version(item) > self.told[contact]  # an older one never after a newer
            self.told[contact] = version(item)
            self.end([item])
            self.known.add(contact)
            self.desk.done([contact], known=True)
        elif how == "refused":
            self.end([item])
            self.end(self.desk.orphan(contact))
            self.desk.done([contact])
        else:
            self.end(self.desk.back([item], not_before=self.now + 1))
            self.desk.done([contact])

    @rule(most=some.integers(1, 4))
    def take_events(self, most):
        items = self.desk.take_events(self.now, most)
        assert len(items) <= most
        for item in items:
            assert item.command.ext_id in self.known
            assert item.command.ext_id not in self.busy()
        if items:
            self.events.append(items)

    @precondition(lambda self: self.events)
    @rule(done=some.booleans())
    def events_end(self, done):
        items = self.events.pop()
        contacts = {item.command.ext_id for item in items}
        if done:
            self.end(items)
            for item in items:
                self.order[item.command.ext_id, item.past].append(item.position)
        else:
            self.end(self.desk.back(items, not_before=self.now + 1))
        self.desk.done(contacts)

    @rule()
    def give_up_what_nobody_told_of(self):
        items = self.desk.stranded(float("inf"))
        for item in items:
            assert item.command.ext_id not in self.known | self.busy()
        self.end(items)

    @rule(contact=some.sampled_from(CONTACTS))
    def forget(self, contact):
        if contact in self.busy():
            return
        self.position += 1
        self.known.discard(contact)
        self.told[contact] = (0, 0)
        items = self.desk.drop(contact, before=self.position)
        assert all(item.command.ext_id == contact for item in items)
        self.end(items)

    @rule()
    def time_passes(self):
        self.now += 1

    @invariant()
    def nothing_is_lost_and_nothing_ends_twice(self):
        flying = len(self.upserts) + sum(map(len, self.events))
        assert len(self.desk) + flying == len(self.open)
        assert len(self.ended) == len(set(self.ended))

    @invariant()
    def events_of_a_contact_went_in_the_order_heard(self):
        assert all(positions == sorted(positions) for positions in self.order.values())

    def teardown(self):
        """Whatever happened, all of a known contact's commands can be brought to their end."""
        for contact in CONTACTS:
            self.hear_upsert(contact, 9)
        self.now += 100
        for batch in self.events:
            self.end(batch)
            self.desk.done({item.command.ext_id for item in batch})
        for contact, item in self.upserts.items():
            self.end([item])
            self.desk.done([contact], known=True)
        self.events, self.upserts = [], {}
        while item := self.desk.take_upsert(self.now):
            self.end([item])
            self.desk.done([item.command.ext_id], known=True)
        while items := self.desk.take_events(self.now, 3):
            self.end(items)
            self.desk.done({item.command.ext_id for item in items})
        assert not self.open
        assert len(self.desk) == 0
        assert not self.desk.upsert_ready(self.now)
        assert not self.desk.events_ready(self.now, 3)


AtTheDesk.TestCase.settings = settings(max_examples=600, stateful_step_count=40, deadline=None)
test_the_desk = AtTheDesk.TestCase


def waiting_at(desk: Desk, contact: str, count: int) -> None:
    for number in range(count):
        desk.add(Item(EventTrack(id=f"{contact}{number}", ext_id=contact, name="X", time=""), number, None))


def test_few_events_go_at_once_and_many_in_full_batches_or_after_two_seconds():
    desk = Desk({"tajo-a", "tajo-c"}.__contains__)
    waiting_at(desk, "tajo-a", 2)
    assert desk.events_ready(0.0, 10)

    waiting_at(desk, "tajo-b", 9)  # it is not known yet
    assert desk.events_ready(0.0, 10)
    assert len(desk.take_events(0.0, 10)) == 2
    desk.done(["tajo-a"])
    waiting_at(desk, "tajo-c", 4)
    assert not desk.events_ready(1.9, 10)
    assert desk.events_ready(2.0, 10)
    waiting_at(desk, "tajo-a", 6)
    assert desk.events_ready(0.1, 10)


def test_what_happens_now_goes_before_the_past_and_its_contact_before_other_contacts():
    desk = Desk({"tajo-b"}.__contains__)
    for number, contact in enumerate(("tajo-x", "tajo-y", "tajo-z")):
        command = ContactUpsert(id=contact, ext_id=contact, version=1, mapping="m")
        desk.add(Item(command, number, None, past=True))
    for number in range(3):
        desk.add(
            Item(
                EventTrack(id=f"p{number}", ext_id="tajo-b", name="X", time=""), 10 + number, None, past=True
            )
        )
    desk.add(Item(EventTrack(id="now", ext_id="tajo-b", name="X", time=""), 20, None))
    desk.add(Item(EventTrack(id="z", ext_id="tajo-z", name="X", time=""), 21, None))

    assert desk.take_upsert(0.0).ext_id == "tajo-z"  # of the past itself, and something of now waits for it
    assert desk.take_upsert(0.0).ext_id == "tajo-x"
    assert [item.command.id for item in desk.take_events(0.0, 3)] == ["now", "p0", "p1"]


def test_what_happens_now_does_not_wait_for_the_past_to_fill_a_batch():
    desk = Desk(lambda _: True)
    for number in range(9):
        desk.add(
            Item(EventTrack(id=f"p{number}", ext_id=f"c{number}", name="X", time=""), number, None, past=True)
        )
    desk.take_events(0.0, 4)
    desk.done([f"c{number}" for number in range(4)])
    desk.block(*(f"c{number}" for number in range(4, 9)))
    desk.take_events(0.0, 4)
    assert not desk.events_ready(1.0, 5)

    desk.add(Item(EventTrack(id="now", ext_id="tajo-n", name="X", time=""), 20, None))

    assert desk.events_ready(1.0, 5)


def upsert(number: int, position: int) -> Item:
    return Item(ContactUpsert(id=f"u{number}", ext_id="tajo-a", version=number, mapping="m"), position, None)


def test_an_older_version_heard_while_a_newer_is_told_has_ended():
    desk, newer, older = Desk(lambda _: True), upsert(2, 9), upsert(1, 3)
    desk.add(newer)

    assert desk.take_upsert(0.0) is newer
    assert desk.add(older) is older


def test_a_newer_version_put_back_goes_before_an_older_heard_meanwhile():
    desk, newest, newer, older = Desk(lambda _: True), upsert(3, 10), upsert(2, 9), upsert(1, 3)
    desk.add(newer)
    desk.take_upsert(0.0)
    desk.add(newest)

    assert desk.back([newer], not_before=0.0) == [newer]
    desk.done(["tajo-a"])
    assert desk.take_upsert(0.0) is newest
    assert desk.back([newest], not_before=0.0) == []
    desk.done(["tajo-a"])
    assert desk.add(older) is older
    assert desk.take_upsert(0.0) is newest
