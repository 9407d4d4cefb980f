"""An event that leaves the log as a line comes back byte for byte, whatever its body is."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from shared.cloudevent import LINE_BYTES_MAX, Logged, NotACloudEventError, from_line, to_line
from shared.event import PRODUCTS, RawEvent, to_message
from shared.message import MSG_ID, Message
from shared.topology import MESSAGE_BYTES_MAX

FORM = "application/x-www-form-urlencoded"
HEADER = some.text(
    some.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=("Cs", "Cc", "Z")), min_size=1
)
VALUES = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=8,
)
SPACES = some.sampled_from(["", " ", "\n", "\r\n", "\t"])
BODIES = some.one_of(
    some.binary(),
    some.text().map(str.encode),
    some.builds(lambda value, indent, end: (json.dumps(value, indent=indent) + end).encode(), VALUES, some.none() | some.just(2), SPACES),
    some.builds(msgspec.json.encode, VALUES),
    some.sampled_from([b"", b'"text"', b'{"a":1,"a":2}', b'"\\ud800"', b"[" * 3000, b"1e400", b"-0", b"\x00" * 99, "\u2028".encode()]),
)  # fmt: skip
EVENTS = some.builds(
    RawEvent,
    id=HEADER,
    product=some.sampled_from(PRODUCTS),
    type=some.from_regex(r"[a-z][a-z.-]{0,30}", fullmatch=True),
    source=some.sampled_from(["/webhooks/taskrouter", "/rest/conversations"]),
    subject=HEADER,
    account_sid=some.from_regex(r"AC[0-9a-f]{32}", fullmatch=True),
    time_ms=some.integers(946_684_800_000, 4_102_444_799_999),
    content_type=some.sampled_from(["application/json", "application/json; charset=utf-8", "application/ld+json", FORM, "text/plain"]),
    body=BODIES,
)  # fmt: skip
TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def line(**other) -> bytes:
    made = {
        "specversion": "1.0", "id": "EV1", "type": "com.twilio.taskrouter.task.created", "source": "/webhooks/taskrouter",
        "subject": "WT1", "time": "2026-11-20T10:00:00.000Z", "accountsid": "AC1", "data": {"a": 1}, **other,
    }  # fmt: skip
    return json.dumps({name: value for name, value in made.items() if value is not None}).encode()


@given(EVENTS, some.none() | HEADER)
def test_body_and_headers_come_back_byte_for_byte(event: RawEvent, said_again: str | None):
    message = to_message(event, TRACE)
    if said_again:
        message.headers[MSG_ID] = said_again

    written = to_line(Logged(message, 17, "2026-11-20T10:00:01.000Z"))

    assert b"\n" not in written
    assert b"\r" not in written
    assert from_line(written) == message
    assert json.loads(written)["specversion"] == "1.0"  # whoever reads JSON reads it


@pytest.mark.parametrize(
    "body", [b'{\n "a": 1}', b'{"a":\r1}', b" {}", b"{} ", b'{"a": 1}', b'"x"', b"", b"\xff", b"{"]
)
@pytest.mark.parametrize("content_type", ["application/json", FORM])
def test_spaces_and_what_is_no_json_stay_as_they_are(body: bytes, content_type: str):
    event = RawEvent(
        id="a", product="survey", type="survey.completed", source="/webhooks/survey", subject="b", account_sid="AC1",
        time_ms=1_760_000_000_000, content_type=content_type, body=body,
    )  # fmt: skip

    written = to_line(Logged(to_message(event, TRACE), 1, ""))

    assert len(written.splitlines()) == 1
    assert from_line(written).body == body


@given(EVENTS)
def test_a_form_is_readable_and_json_stands_as_json(event: RawEvent):
    cloud = json.loads(to_line(Logged(to_message(event, TRACE), 1, "")))

    assert ("data" in cloud) != ("data_base64" in cloud)
    if event.content_type == FORM and event.body.isalnum():
        assert cloud["data"] == event.body.decode()


@given(some.binary())
def test_whatever_a_line_is_it_is_an_event_or_refused_in_words(given_: bytes):
    with pytest.raises(NotACloudEventError):
        from_line(given_)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (line()[:-20], "cut off"),
        (b"\xff" + line(), "cut off"),
        (b"[]", "Expected `object`"),
        (line(specversion="0.3"), "specversion is not 1.0"),
        (line(id=None), "`id`"),
        (line(id=7), r"\$\.id"),
        (line(id=" "), "id is missing or empty"),
        (line(id="a\r\nb: c"), "id has control characters"),
        (line(type="com.github.push"), "type is not com.twilio"),
        (line(type="com.twilio.taskrouter."), "type is not com.twilio"),
        (line(time="yesterday"), "time is not RFC 3339"),
        (line(time="2026-11-20T10:00:00Z\nx: y"), "time is not RFC 3339"),
        (line(accountsid=None), "accountsid is missing or empty"),
        (line(data=None), "neither data nor data_base64"),
        (line(data_base64="AA=="), "both data and data_base64"),
        (line(data=None, data_base64="A"), "not base64"),
        (line(data="x" * (9 * 1024**2)), "larger than the 8 MiB"),
        (line(subject="x" * MESSAGE_BYTES_MAX), "larger than the 8 MiB"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_and_no_value_of_it(wrong: bytes, why: str):
    with pytest.raises(NotACloudEventError, match=why) as raised:
        from_line(wrong)

    assert "github" not in str(raised.value)


def test_the_account_is_asked_for_only_where_nobody_says_one():
    assert from_line(line(accountsid=None), account_sid="AC9").subject.startswith("twilio.AC9.")
    assert from_line(line()).subject.startswith("twilio.AC1.")


@pytest.mark.parametrize("byte", [b"\x00", b"a", b'"', "é".encode(), b"\xff"])
@pytest.mark.parametrize("content_type", [FORM, "application/json"])
def test_the_largest_message_fits_a_line(byte: bytes, content_type: str):
    body = byte * ((MESSAGE_BYTES_MAX - 4096) // len(byte))
    message = Message("twilio.AC1.00.survey.survey.completed", body, {
        "ce-id": "a", "ce-type": "com.twilio.survey.survey.completed", "ce-source": "/webhooks/survey", "ce-subject": "b",
        "ce-time": "2026-11-20T10:00:00.000Z", "content-type": content_type, MSG_ID: "a",
    })  # fmt: skip

    written = to_line(Logged(message, 1, ""))

    assert len(written) < LINE_BYTES_MAX
    assert from_line(written).body == body
