"""What can be told with handle_event, and that everything else is refused with a reason and without its values."""

import json

import pytest

from ingest.sources import Request, read
from tajo.events import EventError, request_of

NOW = "2026-11-20T10:00:00.000Z"
WT = "WT" + "1" * 32
TASK = {
    "task_sid": WT, "customer_email": "ana@example.com", "channel": "sms", "duration": 30.5, "queue_name": "Support",
}  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "payload", "product", "time_ms"),
    [
        ("task.completed", TASK, "flex", 1795168800000),
        ("task.completed", {"task_sid": WT, "time": "2026-11-20T09:00:00Z"}, "flex", 1795165200000),
        ("survey.completed", {"score": 0, "task_sid": WT}, "survey", 1795168800000),
        ("survey.completed", {"score": 4, "customer_phone": "+12025550101"}, "survey", 1795168800000),
    ],
)
def test_what_is_told_is_what_ingest_reads(type_, payload, product, time_ms):
    told = request_of(type_, payload, now=NOW)

    heard = read(Request(told.path, told.body, 0, "AC", keep_bodies=False))

    assert not heard.unreadable
    (event,) = heard.events
    assert (event.product, event.type, event.time_ms) == (product, type_, time_ms)


def test_every_field_is_on_the_wire():
    assert json.loads(request_of("task.completed", TASK, now=NOW).body) == {**TASK, "occurredAt": NOW}


@pytest.mark.parametrize(
    ("type_", "payload", "said"),
    [
        ("task.created", {}, "there are task.completed, survey.completed"),
        ("task.completed", {}, "missing required field `task_sid`"),
        ("task.completed", {"task_sid": "WR" + "5" * 32}, "task_sid"),
        ("task.completed", {**TASK, "customer_mail": "5@example.com"}, "unknown field `customer_mail`"),
        ("task.completed", {**TASK, "customer_email": "5ecret"}, "customer_email is no mail address"),
        ("task.completed", {**TASK, "duration": -5}, "$.duration"),
        ("task.completed", {**TASK, "duration": "5 minutes"}, "$.duration"),
        ("task.completed", {**TASK, "queue_name": "5" * 1001}, "$.queue_name"),
        ("task.completed", {**TASK, "time": "5 o'clock"}, "time is not RFC 3339"),
        ("survey.completed", {"score": 500, "task_sid": WT}, "$.score"),
        ("survey.completed", {"score": 5}, "survey.completed of nobody"),
        ("survey.completed", {"score": 5, "customer_phone": "12025550155"}, "customer_phone is not E.164"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_reason(type_, payload, said):
    with pytest.raises(EventError) as caught:
        request_of(type_, payload, now=NOW)

    assert said in str(caught.value)
    assert not any(
        str(value) in str(caught.value) for value in payload.values() if "5" in str(value) and value != 5
    )


@pytest.mark.parametrize("payload", [None, 5, "5ecret", ["5ecret"]])
def test_a_payload_that_is_no_mapping_is_refused_with_the_fields_there_are(payload):
    with pytest.raises(EventError, match=r"the payload is no mapping; its fields are task_sid, ") as caught:
        request_of("task.completed", payload, now=NOW)

    assert "5" not in str(caught.value)


def test_a_channel_that_flex_does_not_have_is_refused_with_those_there_are():
    with pytest.raises(EventError, match="channel"):
        request_of("task.completed", {**TASK, "channel": "pigeon"}, now=NOW)
