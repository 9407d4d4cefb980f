"""Brevo's answers become verdicts: the table, held against every recorded-shape fixture."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from brevo_sink.answer import (
    AGAIN_S,
    Halve,
    InDoubt,
    Partly,
    Singly,
    Without,
    exists,
    of_contact,
    of_event,
    of_events,
    without_words,
)
from shared.verdict import Done, Pause, Reject, Retry

DATA = Path(__file__).parent.parent / "data/brevo"


def answered(name: str) -> tuple[int, dict, bytes]:
    response = json.loads((DATA / f"{name}.json").read_text())["response"]
    return (
        response["status"],
        response["headers"],
        json.dumps(response["body"]).encode() if response["body"] else b"",
    )


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("contacts/create.201", Done()),
        ("contacts/upsert_existing.204", Done()),
        (
            "contacts/upsert.duplicate_sms.400",
            Without(frozenset({"SMS"}), "belongs to another contact", taken=True),
        ),
        (
            "contacts/upsert.duplicate_sms.invalid_parameter.400",
            Without(frozenset({"SMS"}), "belongs to another contact", taken=True),
        ),
        (
            "contacts/create.duplicate_email.400",
            Without(frozenset({"email"}), "belongs to another contact", taken=True),
        ),
        (
            "contacts/create.contact_already_exist.400",
            Without(frozenset({"email"}), "belongs to another contact", taken=True),
        ),
        ("contacts/create.invalid_phone.400", Without(frozenset({"SMS"}), "no phone number to Brevo")),
        ("contacts/create.too_early.425", Retry),
        ("contacts/update.not_found.404", Reject),
        ("errors/401.key_not_found", Pause),
        ("errors/401.no_key", Pause),
        ("errors/401.unrecognised_ip", Pause),
        ("errors/402.not_enough_credits", Pause),
        ("errors/403.account_under_validation", Pause),
        ("errors/403.permission_denied", Pause),
        ("errors/405.method_not_allowed", Reject),
        ("errors/429", Retry("429", 1.0)),
        ("errors/429.hourly_bucket", Retry),
        ("errors/500", Retry),
        ("errors/524.html", Retry),
    ],
)
def test_the_answer_to_a_contact_becomes_its_verdict(name, verdict):
    given_ = of_contact(*answered(name))

    assert given_ == verdict if not isinstance(verdict, type) else isinstance(given_, verdict)


@pytest.mark.parametrize(
    ("name", "count", "verdict"),
    [
        ("events/batch.accepted.202", 2, Done()),
        ("events/batch.partial.207", 3, Partly({2: "refused: event_name contains invalid characters"})),
        ("events/batch.all_invalid.400", 1, Partly({0: "refused: identifiers is required"})),
        ("errors/401.key_not_found", 5, Pause),
        ("errors/429", 5, Retry("429", 1.0)),
        ("errors/500", 5, InDoubt("500")),
        ("errors/524.html", 5, InDoubt("524")),
        ("events/create.bad_event_name.400", 5, Halve),
        ("events/create.bad_event_name.400", 1, Reject),
        ("errors/402.not_enough_credits", 5, Pause),
        ("errors/403.account_under_validation", 5, Pause),
        ("errors/403.permission_denied", 5, Singly),
        ("errors/405.method_not_allowed", 5, Singly),
        ("contacts/get.not_found.404", 5, Singly),
    ],
)
def test_the_answer_to_events_becomes_their_verdict(name, count, verdict):
    given_ = of_events(*answered(name), count)

    assert given_ == verdict if not isinstance(verdict, type) else isinstance(given_, verdict)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("events/create.ext_id.204", Done()),
        ("events/create.bad_event_name.400", Reject),
        ("events/create.no_identifier.400", Reject),
        ("errors/403.permission_denied", Pause),
        ("errors/500", InDoubt("500")),
        ("errors/429", Retry("429", 1.0)),
    ],
)
def test_the_answer_to_a_single_event_becomes_its_verdict(name, verdict):
    given_ = of_event(*answered(name))

    assert given_ == verdict if not isinstance(verdict, type) else isinstance(given_, verdict)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("errors/401.no_key", "hears no API key"),
        ("errors/401.key_not_found", "refuses our API key"),
        ("errors/401.unrecognised_ip", "IP address"),
    ],
)
def test_each_of_the_three_meanings_of_a_401_has_its_remedy(name, word):
    said = of_contact(*answered(name))

    assert word in said.why
    assert said.remedy


@pytest.mark.parametrize("status", [400, 401, 403, 422])
@pytest.mark.parametrize("code", ["account_under_validation", "not_enough_credits"])
def test_what_stops_an_account_is_known_by_its_code_whatever_the_status(status, code):
    body = json.dumps({"code": code, "message": "no"}).encode()

    assert isinstance(of_contact(status, {}, body), Pause)
    assert isinstance(of_events(status, {}, body, 3), Pause)
    assert isinstance(of_event(status, {}, body), Pause)


def test_a_duplicate_of_our_own_ext_id_is_refused_and_never_merged():
    assert of_contact(*answered("contacts/upsert.duplicate_sms_or_ext_id.400")) == Reject(
        "its ext_id belongs to another contact"
    )


@pytest.mark.parametrize(
    ("reset", "seconds"), [("1", 1.0), ("0", 0.1), ("850", 60.0), ("30000", 30.0), ("soon", 1.0), ("", 1.0)]
)
def test_a_reset_in_seconds_or_milliseconds_is_survived(reset, seconds):
    assert of_contact(429, {"x-sib-ratelimit-reset": reset}, b"") == Retry("429", seconds)


@given(
    some.integers(200, 599),
    some.binary(max_size=60)
    | some.dictionaries(
        some.sampled_from(["code", "message", "errors", "metadata"]),
        some.none() | some.text(max_size=9) | some.lists(some.integers()),
    ).map(lambda d: json.dumps(d).encode()),
)
def test_no_answer_makes_the_table_raise(status, body):
    of_contact(status, {}, body)
    of_events(status, {}, body, 3)
    of_event(status, {}, body)


def test_what_brevo_repeats_of_a_customer_is_not_repeated_by_us():
    body = b'{"code":"invalid_parameter","message":"ana@example.com or +1 202 555 0147 is odd"}'

    refused = of_contact(422, {}, body)

    assert refused == Reject("422 invalid_parameter: … or … is odd")
    assert (
        without_words(refused.why) == "422 invalid_parameter"
    )  # a name in it nobody can tell from another word


@pytest.mark.parametrize("body", [b'{"message":"r\xe9essayez"}', b"[" * 100_000, b"\xff\xfe<"])
def test_a_body_that_is_no_json_is_none_and_its_status_counts(body):
    assert of_contact(503, {}, body) == Retry("503", AGAIN_S)
    assert of_events(503, {}, body, 2) == InDoubt("503")
    assert isinstance(of_contact(401, {}, body), Pause)
    assert exists(400, body) is False


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (400, {"status": "failed", "errors": [{"eventIndex": [0], "message": "bad"}]}, Halve),  # all failed, one is named
        (207, {}, InDoubt),
        (207, {"successful_events": 1, "errors": [{"eventIndex": [0], "message": "bad"}]}, InDoubt),
        (207, {"successful_events": 2, "errors": [{"eventIndex": [0], "message": "bad"}]}, Partly),
    ],
)  # fmt: skip
def test_what_an_answer_does_not_name_is_not_taken_for_delivered(status, body, verdict):
    assert isinstance(of_events(status, {}, json.dumps(body).encode(), 3), verdict)


def test_a_mail_brevo_does_not_take_is_left_out_as_a_phone_is():
    body = b'{"code": "invalid_parameter", "message": "Invalid email address"}'

    assert of_contact(400, {}, body) == Without(frozenset({"email"}), "no email to Brevo")


@pytest.mark.parametrize("status", [301, 404, 407, 451])
def test_an_answer_not_in_brevos_words_burns_nothing(status):
    assert isinstance(of_contact(status, {}, b"<html>moved</html>"), Retry)
    assert isinstance(of_events(status, {}, b"<html>moved</html>", 3), Retry)
