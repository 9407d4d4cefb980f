"""What a preview says of given events: what would be told, what waits, what is not told and why."""

import json
from urllib.parse import urlencode

from mapper.kin import Kin
from mapper.preview import preview
from mapper.step import Policy
from shared.connector_file import parse
from shared.event import RawEvent

POLICY = Policy.of(
    parse(
        """
connectors: {twilio_flex: {channels: [voice], sync: {csat: false}, lists: {support_contacts: 7}}}
field_mapping: {attributes.email: email, customer_tier: VIP_TIER}
event_mapping:
  task.created: ASKED
  task.completed: {name: SOLVED, when: {customer_tier: gold}}
  reservation.accepted: {name: TAKEN, enabled: false}
  survey.completed: SCORED
"""
    )
)


def task(number: int, type_: str, sid: int = 1, *, channel: str = "voice", **attributes) -> RawEvent:
    fields = {
        "TaskSid": f"WT{sid:032x}",
        "TaskChannelUniqueName": channel,
        "TaskAttributes": json.dumps(attributes),
    }
    return event(number, type_, urlencode(fields).encode())


def event(number: int, type_: str, body: bytes, source: str = "/webhooks/taskrouter") -> RawEvent:
    return RawEvent(
        id=f"EV{number}", product="taskrouter", type=type_, source=source, subject="x", account_sid="AC1",
        time_ms=1_760_000_000_000 + number, content_type="", body=body,
    )  # fmt: skip


def test_a_contact_says_what_each_attribute_is_made_of():
    found = preview([task(1, "task.created", email="a@example.com", customer_tier="silver")], POLICY)

    (contact,) = found.contacts
    assert (contact.email, contact.list_ids) == ("a@example.com", (7,))
    assert [(fact.attribute, fact.value, fact.source) for fact in contact.attributes] == [
        ("VIP_TIER", "silver", "customer_tier")
    ]
    (told,) = found.events
    assert (told.name, told.contact, told.held) == ("ASKED", contact.ext_id, False)
    assert told.properties["channel"] == "voice"


def test_each_reason_not_to_tell_is_said():
    found = preview(
        [
            task(1, "task.created", 1, email="a@example.com", customer_tier="silver"),
            task(2, "task.completed", 1, email="a@example.com", customer_tier="silver"),
            task(3, "task.created", 2, channel="sms", email="b@example.com"),
            task(4, "task.created", 3),
            task(5, "reservation.accepted", 1),
            event(6, "task.created", b"\xff", "/webhooks/survey"),
            event(7, "worker.activity.update", b"WorkerSid=WK1"),
            event(8, "survey.completed", b'{"score": 5, "email": "a@example.com"}', "/webhooks/survey"),
        ],
        POLICY,
    )

    assert found.heard == 8
    assert [one.name for one in found.events] == ["ASKED"]
    assert [(one.id[-20:], one.why.partition(":")[0]) for one in found.waiting] == [
        (f"{3:07x}/task.created", "nobody knows whose it is")
    ]
    assert {(one.id[-16:], one.why) for one in found.dropped} == {
        (f"{1:01x}/task.completed", "its rule's `when` does not hold"),
        (f"{2:03x}/task.created", "its channel is sms, which is not among `channels`"),
    }
    assert [(one.type, one.why.partition(":")[0].partition(";")[0], one.count) for one in found.ignored] == [
        ("reservation.accepted", "no rule of event_mapping tells of it", 1),
        ("survey.completed", "its kind is switched off under sync", 1),
        ("task.created", "cannot be read, so it becomes a dead letter", 1),
        ("worker.activity.update", "happens to no customer", 1),
    ]


def test_an_event_that_lacks_something_is_held():
    policy = Policy.of(
        parse("field_mapping: {attributes.email: email}\nevent_mapping: {task.completed: SOLVED}")
    )

    (told,) = preview([task(1, "task.completed", email="a@example.com")], policy).events

    assert told.held


def test_what_belongs_together_is_found_whatever_order_it_was_noted_in():
    kin = Kin()
    for sequence, names in (
        (1, ["a"]),
        (2, ["b", "mail"]),
        (3, []),
        (4, ["c"]),
        (5, ["a", "d"]),
        (6, ["d", "mail"]),
    ):
        kin.note(sequence, names)

    assert kin.of([1]) == {1, 2, 5, 6}
    assert kin.of(names=["b"]) == {1, 2, 5, 6}
    assert kin.of([3]) == {3}
    assert kin.of([4], ["nobody"]) == {4}
    assert kin.of() == set()


def test_an_event_has_the_properties_that_were_known_when_it_went_out():
    who = {"email": "a@example.com"}
    policy = Policy.of(
        parse("field_mapping: {attributes.email: email}\nevent_mapping: {task.created: A, task.canceled: B}")
    )
    late = 31 * 24 * 3600 * 1000

    found = preview(
        [task(1, "task.created", **who), task(9000, "task.canceled", **who), task(2, "task.created", 2),
         task(late, "task.created", 3, **who)],
        policy,
    )  # fmt: skip

    created, canceled, _ = found.events
    assert "duration_seconds" not in created.properties
    assert canceled.properties["duration_seconds"] == 9
    assert [one.why for one in found.dropped] == ["nobody came within 30 days"]
