"""What `--redact` replaces, and that the same becomes the same."""

import json
import time
from urllib.parse import parse_qs, urlencode

import pytest

from shared.message import Message
from tajo.pseudonyms import COUNTRY, UNREADABLE, Pseudonyms

ONE = Pseudonyms(b"key")


def body(given: bytes) -> bytes:
    return ONE.of(Message("s", given, {})).body


def field(name: str, value: object):
    return json.loads(body(json.dumps({name: value}).encode()))[name]


def test_the_same_mail_or_phone_is_the_same_wherever_it_stands():
    mail = field("email", "Ana@Acme.example")
    form = parse_qs(
        body(
            urlencode({"TaskAttributes": json.dumps({"x": "ana@acme.example, +4915112345678"})}).encode()
        ).decode()
    )

    assert json.loads(form["TaskAttributes"][0])["x"] == f"{mail}, {field('from', '+4915112345678')}"
    assert mail.endswith("@example.com")
    assert (
        field("customerAddress", "whatsapp:+4915112345678") == f"whatsapp:{field('from', '+4915112345678')}"
    )
    assert field("from", "+4915112345678").startswith(COUNTRY)
    assert field("phone", 4915112345678) == field("phone", "4915112345678")


@pytest.mark.parametrize(
    "name", ["name", "friendly_name", "customerName", "first_name", "WorkerName", "customers.name"]
)
def test_names_are_replaced(name):
    assert field(name, "Ana Pérez").startswith("Person-")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TaskQueueName", "Support"), ("task_sid", f"WT{1:032x}"), ("direction", "inbound"), ("from", "+266696687"),
        ("score", 5), ("handled", True), ("TimestampMs", "1760000000101"), ("nothing", None), ("name", ""),
    ],
)  # fmt: skip
def test_what_says_of_nobody_who_it_is_stays(name, value):
    assert field(name, value) == value


@pytest.mark.parametrize("between", [" ", ",", "|", "/", "+", "=", "@", ";+"])
def test_each_of_several_mails_goes_whatever_stands_between(between):
    said = field("note", between.join(["ana@acme.example", "bo@b.example", "cy@c.example"]))

    assert said.count("person-") == 3
    assert not any(name in said for name in ("ana", "bo@", "cy@", "acme"))


@pytest.mark.parametrize("long", ["a", "a@", "a.", "a@b", "+1"])
def test_a_text_of_megabytes_takes_no_minutes(long):
    """From each of its characters the whole rest was read: hours."""
    began = time.process_time()
    field("note", long * 500_000)

    assert time.process_time() - began < 5


def test_what_people_wrote_and_cards_go():
    assert field("Body", "my pin is 1234") == "[redacted]"
    for name in ("comment", "initialMessage", "pre_engagement_data.question", "conversations.content"):
        assert field(name, "Bob was rude to my mother Hilda, flat 12") == "[redacted]"
    assert field("note", "4111 1111 1111 1111") == "[card redacted]"


def test_further_fields_are_named():
    with_more = Pseudonyms(b"key", ["policy_number"])

    assert json.loads(with_more.of(Message("s", b'{"policy_number": 77}', {})).body)[
        "policy_number"
    ].startswith("id-")


@pytest.mark.parametrize("given", [b"\xff=1", b"{", b"[" * 5000])
def test_what_cannot_be_read_is_left_out(given):
    assert body(given) == UNREADABLE


def test_another_key_makes_other_fakes_and_ids_of_events_are_redacted_too():
    message = Message("s", b"a=b%40c.example", {"ce-id": "survey/b@c.example", "ce-type": "x@y.example"})

    assert Pseudonyms(b"other").of(message).body != ONE.of(message).body
    assert "b@c.example" not in ONE.of(message).headers["ce-id"]
    assert ONE.of(message).headers["ce-type"] == "x@y.example"
    assert ONE.of(Message("s", b"", {})).body == b""
