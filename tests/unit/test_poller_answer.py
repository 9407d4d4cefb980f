"""What each of Twilio's answers means."""

from pathlib import Path

import pytest

from poller import answer
from poller.answer import Absent
from shared.verdict import Done, Pause, Reject, Retry

ERRORS = Path(__file__).parents[1] / "data/twilio/errors"
NOW_S = 1_795_000_000.0


def of(status, body=b"{}", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer.of(status, named, body, now_s=NOW_S, delay_s=0.7)


FIXTURES = {
    "400-20001": Reject, "400-40153-absolute-paging": Reject, "401-20003": Pause, "403-20403": Pause,
    "404-20404": Absent, "412-precondition": Reject, "429-20429": Retry, "503-20503": Retry,
}  # fmt: skip


def test_every_fixture_is_known():
    assert {path.stem for path in ERRORS.glob("*.json")} == FIXTURES.keys()


@pytest.mark.parametrize("name", FIXTURES)
def test_each_error_of_twilio_is_told_apart(name):
    assert isinstance(of(int(name[:3]), (ERRORS / f"{name}.json").read_bytes()), FIXTURES[name])


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_success(status):
    assert of(status) == Done()


@pytest.mark.parametrize(
    ("said", "after_s"),
    [("3", 3.0), ("86400", 300.0), ("Wed, 18 Nov 2026 11:06:50 GMT", 10.0), ("soon", 0.7), ("", 0.7), ("-4", 0.7)],
)  # fmt: skip
def test_retry_after_is_kept_within_reason(said, after_s):
    assert of(429, retry_after=said) == Retry("429", after_s)
    assert of(503, retry_after=said) == Retry("503", after_s)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 524, 408, 409, 425])
def test_what_passes_is_tried_again(status):
    assert of(status, b"upstream connect error") == Retry(str(status), 0.7)


def test_what_no_twilio_said_is_tried_again():
    assert isinstance(of(400, b"<html>Blocked</html>"), Retry)


def test_no_message_of_twilio_is_repeated_for_it_may_hold_whom_we_asked_for():
    verdict = of(400, b'{"code": 20001, "message": "Invalid Address +15005550010"}')

    assert verdict == Reject("400, Twilio error 20001")


def test_delays_grow_spread_and_end():
    assert answer.delay_s(1, 1.0) == 0.5
    assert answer.delay_s(1, 0.0) == 0.25
    assert answer.delay_s(5, 1.0) == 8.0
    assert answer.delay_s(500, 1.0) == 60.0
