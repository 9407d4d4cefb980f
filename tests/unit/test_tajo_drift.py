"""What Brevo holds against what it shall: its own ways are no difference, and everything else is."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from shared.replay import Expected
from tajo import drift
from tajo.drift import Contact, Difference, Event, Ours

EXPECTED = Expected(
    ext_id="tajo-1",
    email="ada@example.com",
    attributes={"SMS": "+12025550101", "N": 3, "D": "2026-11-20", "VIP": False, "TIER": "gold"},
    list_ids=(32, 33),
    events=(("WT1/task.created", "ASKED", "2026-11-20T09:00:00.123Z"),),
)
HELD = {"SMS": "12025550101", "N": 3.0, "D": "2026-11-20T00:00:00.000Z", "VIP": False, "TIER": "gold"}
EVENT = Event("WT1/task.created", "ASKED", "2026-11-20T09:00:00Z", 7)


def contact(**more) -> Contact:
    usual = {
        "id": 7,
        "ext_id": "tajo-1",
        "email": "Ada@example.com",
        "attributes": HELD,
        "list_ids": (33, 32, 5),
    }
    return Contact(**{**usual, **more})


NOTHING = Ours()


def found(contact: Contact | None, events=(EVENT,), ours=NOTHING) -> list[Difference]:
    return list(drift.differences(EXPECTED, contact, events, ours))


def test_what_brevo_writes_in_its_own_way_is_no_difference():
    assert not found(contact())


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (contact(attributes={**HELD, "N": 4}), {"kind": "attribute", "what": "N", "expected": 3, "found": 4}),
        (contact(attributes={**HELD, "VIP": None}), {"kind": "attribute", "what": "VIP", "expected": False}),
        (contact(attributes={**HELD, "VIP": 0}), {"kind": "attribute", "what": "VIP", "expected": False, "found": 0}),
        (
            contact(attributes={**HELD, "D": "2026-11-21"}),
            {"kind": "attribute", "what": "D", "expected": "2026-11-20", "found": "2026-11-21"},
        ),
        (
            contact(attributes={**HELD, "SMS": "12025550102"}),
            {"kind": "attribute", "what": "SMS", "expected": "+12025550101", "found": "12025550102"},
        ),
        (contact(email="bob@example.com"), {"kind": "email", "expected": "ada@example.com", "found": "bob@example.com"}),
        (contact(list_ids=(32,)), {"kind": "list_missing", "what": "33"}),
    ],
)  # fmt: skip
def test_what_somebody_changed_by_hand_is_a_difference(held, expected):
    assert found(held) == [Difference(ext_id="tajo-1", **expected)]
    assert len(set(drift.sum_of(EXPECTED, held, [EVENT], Ours()))) == 2


def test_a_contact_that_is_not_there_is_one_difference_and_its_events_are_others():
    assert [one.kind for one in found(None, ())] == ["contact_missing", "event_missing"]


def test_an_event_missing_doubled_unknown_or_at_another_time_is_a_difference():
    other = Event("WT2/task.created", "ASKED", "2026-11-20T09:00:00Z", 7)
    late = Event(EVENT.id, EVENT.name, "2026-11-20T09:00:01Z", 7)
    assert [one.kind for one in found(contact(), ())] == ["event_missing"]
    assert [one.kind for one in found(contact(), (EVENT, EVENT))] == ["event_doubled"]
    assert [one.kind for one in found(contact(), (EVENT, other))] == ["event_extra"]
    assert [one.kind for one in found(contact(), (late,))] == ["event_time"]


def test_what_happened_after_what_was_read_is_not_missed():
    assert not list(drift.differences(EXPECTED, contact(), (), Ours(), until="2026-11-20T09:00:00Z"))
    assert list(drift.differences(EXPECTED, contact(), (), Ours(), until="2026-11-20T10:00:00Z"))


def test_more_than_expected_is_a_difference_only_where_nobody_else_writes():
    more = contact(attributes={**HELD, "OLD": "x", "THEIRS": 1})
    ours = Ours(frozenset({"OLD", "N"}), frozenset({32, 33, 5}))
    assert not found(more)
    assert found(more, ours=ours) == [
        Difference(kind="attribute", ext_id="tajo-1", what="OLD", found="x"),
        Difference(kind="list_extra", ext_id="tajo-1", what="5"),
    ]


values = some.one_of(
    some.booleans(), some.integers(-(2**50), 2**50), some.floats(allow_nan=False, allow_infinity=False),
    some.text(max_size=5), some.dates().map(str),
)  # fmt: skip
contacts = some.builds(
    contact,
    email=some.sampled_from(["ada@example.com", "", "eve@example.com"]),
    attributes=some.dictionaries(some.sampled_from([*HELD, "X"]), values, max_size=6),
    list_ids=some.lists(some.integers(31, 34)).map(tuple),
)
wanted = some.builds(
    Expected,
    ext_id=some.just("tajo-1"),
    email=some.sampled_from([None, "ada@example.com"]),
    attributes=some.dictionaries(some.sampled_from([*HELD, "X"]), values, max_size=6),
    list_ids=some.lists(some.integers(31, 34)).map(tuple),
    events=some.sampled_from([(), EXPECTED.events]),
)


@example(msgspec.structs.replace(EXPECTED, list_ids=(33, 33, 32)), contact(list_ids=(32, 33)), [EVENT])
@example(msgspec.structs.replace(EXPECTED, list_ids=(33, 33)), contact(list_ids=()), [EVENT])
@given(wanted, some.none() | contacts, some.lists(some.just(EVENT), max_size=2))
def test_the_hashes_are_equal_exactly_where_nothing_differs(expected, held, events):
    ours = Ours(frozenset({*HELD, "X"}), frozenset(range(31, 35)))
    shall, there = drift.sum_of(expected, held, events, ours)
    assert (shall == there) == (not list(drift.differences(expected, held, events, ours)))
