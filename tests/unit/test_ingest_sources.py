"""From requests to raw events: what each route sends, and the same thing with the same id however it is heard."""

import json
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from ingest.sources import EVENT_BYTES_MAX, ROUTES, Request, read
from shared.event import to_message

DATA = Path(__file__).parent.parent / "data/twilio"
ACCOUNT = "ACe9befa5ddf22dfdc0075c08cf16815aa"


def request(path: str, body: bytes, *, keep: bool = True) -> Request:
    return Request(path, body, 1_800_000_000_000, "AC" + "0" * 32, keep)


def one(path: str, file: str):
    holds = read(request(path, (DATA / file).read_bytes()))
    assert len(holds.events) == 1
    assert not holds.unreadable
    return holds.events[0]


@pytest.mark.parametrize("file", sorted(path.name for path in (DATA / "taskrouter").iterdir()))
def test_a_taskrouter_callback_is_one_event_named_by_its_ev_sid(file):
    body = (DATA / "taskrouter" / file).read_bytes()
    fields = dict(parse_qsl(body.decode(), keep_blank_values=True))

    event = one("/webhooks/taskrouter", f"taskrouter/{file}")

    assert event.id == fields["Sid"]
    assert (event.product, event.type, event.time_ms) == (
        "taskrouter",
        fields["EventType"],
        int(fields["TimestampMs"]),
    )
    assert event.subject == fields.get("TaskSid", fields["ResourceSid"])
    assert event.account_sid == ACCOUNT
    assert event.body == body


def test_an_event_stream_is_split_into_the_bytes_of_its_elements():
    body = (DATA / "eventstreams/batch.json").read_bytes()

    events = read(request("/webhooks/event-streams", body)).events

    assert [event.body for event in events] == [
        bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])
    ]
    assert b"".join(event.body for event in events) in body.replace(b'},{"specversion', b'}{"specversion')


def test_callback_and_stream_name_the_same_thing_the_same():
    streamed = {
        event.id: event
        for event in read(
            request("/webhooks/event-streams", (DATA / "eventstreams/batch.json").read_bytes())
        ).events
    }
    called = [
        one("/webhooks/taskrouter", "taskrouter/01-voice.task.created.form"),
        one("/webhooks/taskrouter", "taskrouter/09-voice.task.completed.form"),
        one("/webhooks/conversations", "conversations/onConversationStateUpdated.closed.form"),
        one("/webhooks/conversations", "conversations/onParticipantAdded.form"),
    ]

    for event in called:
        same = streamed[event.id]
        assert (same.type, same.product, same.time_ms) == (event.type, event.product, event.time_ms)


def test_one_bare_object_is_a_stream_of_one():
    assert one("/webhooks/event-streams", "eventstreams/single-object.json").type == "task.canceled"


def test_a_record_whose_data_is_json_text_is_read():
    event = one("/webhooks/event-streams", "eventstreams/kinesis-record-data.json")

    assert event.id.startswith("EV")


def test_a_test_event_and_other_products_are_acknowledged_and_not_stored():
    assert (
        read(request("/webhooks/event-streams", (DATA / "eventstreams/test-event.json").read_bytes())).ignored
        == 1
    )
    assert (
        read(
            request("/webhooks/event-streams", b'{"type":"com.twilio.studio.flow.execution.ended","id":"1"}')
        ).ignored
        == 1
    )


def test_one_bad_element_does_not_take_the_others_along():
    good = json.loads((DATA / "eventstreams/single-object.json").read_text())
    body = json.dumps([good, {"no": "type"}, 7, good]).encode()

    holds = read(request("/webhooks/event-streams", body))

    assert len(holds.events) == 2
    assert [(letter.body, letter.why) for letter in holds.unreadable] == [
        (b'{"no": "type"}', "a CloudEvent without a type"),
        (b"7", "not a CloudEvent: ValidationError"),
    ]


def test_a_pre_event_is_let_go_on():
    assert (
        read(request("/webhooks/conversations", b"EventType=onMessageAdd&ConversationSid=CH1")).ignored == 1
    )


@pytest.mark.parametrize(
    ("body", "id_", "subject"),
    [
        (b'{"score": 4, "task_sid": "WT1"}', "survey:csat/WT1", "WT1"),
        (b"score=4&TaskSid=WT1&survey=nps", "survey:nps/WT1", "WT1"),
        (b'{"rating": "4.5", "conversation_sid": "CH1", "id": "S1"}', "survey:S1", "CH1"),
    ],
)
def test_a_survey_is_named_by_its_id_or_by_whom_it_is_about(body, id_, subject):
    event = read(request("/webhooks/survey", body)).events[0]

    assert (event.id, event.subject, event.type, event.time_ms) == (
        id_,
        subject,
        "survey.completed",
        1_800_000_000_000,
    )


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"score": 4}',
        b'{"score": 101, "task_sid": "WT1"}',
        b'{"score": true, "task_sid": "WT1"}',
        b'{"score": "nan", "task_sid": "WT1"}',
        b'{"score": 5, "task_sid": "who@secret.example", "phone": "anonymous"}',
    ],
)
def test_a_survey_without_score_or_subject_is_unreadable(body):
    assert read(request("/webhooks/survey", body)).unreadable


def test_the_token_of_the_flex_plugin_is_never_stored():
    event = one("/webhooks/flex/task-complete", "flex-plugin/task-completed.json")

    assert b"flex-user-jwe" not in event.body
    assert event.subject == "WT0795f31e7aca4f78bfe0a7ed4351cf09"
    assert event.id == f"flex-plugin/task.completed/{event.subject}"


@pytest.mark.parametrize(
    "body",
    [
        b'{"Token": "eyJh.secret", "task": {"attributes": {}}}',
        b'{"token": "eyJh.secret", "task": {"taskSid": "WT1"',
        b'{"task":{"taskSid":"WT1"},"Token":"eyJh.sec',
        b"Token=eyJh.secret&taskSid=WT1",
        b"a=1&token=eyJh.secret",
    ],
)
def test_nor_is_it_in_the_letter_of_a_body_that_cannot_be_read(body):
    (letter,) = read(request("/webhooks/flex/task-complete", body)).unreadable

    assert b"eyJh" not in letter.body
    assert b"task" in letter.body or b"a=1" in letter.body


def test_bodies_are_taken_out_of_what_is_stored():
    body = (DATA / "conversations/onMessageAdded.form").read_bytes()

    event = read(request("/webhooks/conversations", body, keep=False)).events[0]

    assert dict(parse_qsl(event.body.decode(), keep_blank_values=True)) == {
        **dict(parse_qsl(body.decode(), keep_blank_values=True)), "Body": "[redacted]",
    }  # fmt: skip


def test_an_event_without_an_ev_sid_is_named_by_what_happened():
    body = urlencode(
        {"EventType": "task.created", "ResourceSid": "WT1", "TaskSid": "WT1", "TimestampMs": "5"}
    ).encode()

    assert read(request("/webhooks/taskrouter", body)).events[0].id == "task.created/WT1/5"


@given(
    some.sampled_from(ROUTES),
    some.binary(max_size=300) | some.text('{}[]":,e1 \\u', max_size=80).map(str.encode),
)
def test_no_body_makes_it_raise_and_each_is_stored_or_acknowledged(path, body):
    holds = read(request(path, body))

    assert (
        holds.events or holds.unreadable or holds.ignored or body.strip() == b"[]" or json.loads(body) == []
    )


@pytest.mark.parametrize("path", ROUTES)
def test_json_as_deep_as_the_body_allows_is_unreadable_and_no_crash(path):
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000

    assert read(request(path, deep)).unreadable


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/webhooks/taskrouter", b"EventType=task.created&Sid=EV1&TaskSid=WT1&TimestampMs=999999999999999"),
        ("/webhooks/taskrouter", b"EventType=task.created&Sid=EV1&TaskSid=WT1&TimestampMs=0"),
        ("/webhooks/survey", b'{"score": 5, "email": "a@b.example", "time": "0001-01-01T00:00:00+14:00"}'),
        (
            "/webhooks/survey",
            b'{"score": 5, "email": "a@b.example", "time": "9999-12-31T23:59:59.999-14:00"}',
        ),
    ],
)
def test_a_time_that_can_be_none_is_when_we_heard(path, body):
    assert read(request(path, body)).events[0].time_ms == 1_800_000_000_000


def test_what_people_wrote_is_not_kept_in_what_cannot_be_read_either():
    form = b"EventType=onMessageAdded&Body=my+secret&Author=x"
    as_json = b'{"type": "com.twilio.conversations.message.added", "data": {"Body": "my secret"}}'

    letters = [
        *read(request("/webhooks/conversations", form, keep=False)).unreadable,
        *read(request("/webhooks/event-streams", as_json, keep=False)).unreadable,
    ]

    assert len(letters) == 2
    assert not any(b"secret" in letter.body for letter in letters)


def test_one_person_s_survey_is_one_however_the_mail_or_phone_is_written_and_their_name_is_in_no_header():
    def heard(**fields: str):
        body = json.dumps({"score": 5, "time": "2026-11-20T10:00:00Z", **fields}).encode()
        return read(request("/webhooks/survey", body)).events[0]

    assert heard(email="a@b.example").id == heard(email=" A@B.Example ", task_sid="a@b.example").id
    assert heard(phone="+12025550101").id == heard(phone="+1 (202) 555-0101").id
    assert "b.example" not in str(to_message(heard(task_sid="a@b.example", email="a@b.example"), "").headers)


def test_a_person_may_be_asked_again_another_day():
    def id_of(time: str) -> str:
        body = json.dumps({"score": 5, "email": "a@b.example", "time": time}).encode()
        return read(request("/webhooks/survey", body)).events[0].id

    assert id_of("2026-11-20T10:00:00Z") == id_of("2026-11-20T10:00:01Z") != id_of("2026-11-21T10:00:00Z")


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("/webhooks/survey", b'{"score":' + b"9" * 400 + b',"task_sid":"WT1"}', "OverflowError"),
        ("/webhooks/taskrouter", b"EventType=task.created&Body=b&x=" + b"\xff" * 2**20, "once redacted"),
        ("/webhooks/event-streams", b"[" + b"1," * 10_000 + b"1]", "ValidationError"),
        ("/webhooks/taskrouter", b"EventType=task.created" + b"&Body=b" * 590_000, "ValueError"),
        ("/webhooks/taskrouter", b"[" + b'{"Body":""},' * 340_000 + b"1]", "TaskRouter"),
    ],
)
def test_what_is_too_large_for_us_is_a_dead_letter_that_fits(path, body, why):
    (unreadable,) = read(Request(path, body, 1, "AC1", keep_bodies=False)).unreadable

    assert why in unreadable.why
    assert len(unreadable.body) <= EVENT_BYTES_MAX
