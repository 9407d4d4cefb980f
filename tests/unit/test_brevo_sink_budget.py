"""The rate limiter on a clock of its own: no window ever holds more than is ours, and nothing is wasted."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from brevo_sink.budget import Budget, Window, bucket_of


@given(some.integers(1, 12), some.lists(some.floats(0, 0.6), min_size=1, max_size=150))
def test_no_window_ever_holds_more_than_its_limit(limit, pauses):
    window, now, taken = Window(limit, 1.0), 0.0, []
    for pause in pauses:
        now += pause
        now += window.wait_s(now)
        window.take(now)
        taken.append(now)

    for start in taken:
        assert sum(start <= moment < start + 0.999_999 for moment in taken) <= limit


def test_behind_a_backlog_all_of_the_allowed_budget_is_used():
    bucket, now = Budget(0.7)["contacts"], 0.0
    calls = 0
    while now < 100:
        wait = bucket.wait_s(now)
        if wait:
            now += wait
        else:
            bucket.take(now)
            calls += 1

    assert calls >= 0.99 * 7 * 100


def test_the_hour_is_kept_too():
    bucket, now, calls = Budget(1.0)["other"], 0.0, 0
    while (wait := bucket.wait_s(now)) == 0.0:
        bucket.take(now)
        calls += 1
        now += 1.0

    assert calls == 100
    assert wait == 3600 - now


@pytest.mark.parametrize(("limit", "per_second"), [("20", 14), ("1000", 700)])
def test_a_limit_is_learned_from_an_answer(limit, per_second):
    bucket = Budget(0.7)["contacts"]

    bucket.learn(
        {"x-sib-ratelimit-limit": limit, "x-sib-ratelimit-remaining": "1", "x-sib-ratelimit-reset": "1"}
    )

    calls = 0
    while not bucket.wait_s(0.5):
        bucket.take(0.5)
        calls += 1
    assert calls == per_second


def test_an_hourly_limit_is_learned_as_one_an_hour():
    bucket = Budget(0.5)["contacts"]

    bucket.learn({"x-sib-ratelimit-limit": "72000"})

    for number in range(36_000):
        bucket.take(number * 0.09)
    assert bucket.wait_s(36_000 * 0.09) > 300


def test_nonsense_in_a_header_teaches_nothing():
    bucket = Budget(1.0)["events"]
    for nonsense in ("", "0", "-1", "many", "1.5"):
        bucket.learn({"x-sib-ratelimit-limit": nonsense})

    for _ in range(10):
        assert not bucket.wait_s(1.0)
        bucket.take(1.0)
    assert bucket.wait_s(1.0)


def test_after_a_429_the_bucket_rests_as_long_as_it_was_told():
    bucket = Budget(1.0)["events"]

    bucket.close(10.0, 2.5)

    assert bucket.wait_s(10.0) == 2.5
    assert bucket.wait_s(12.5) == 0.0


def test_each_call_counts_in_brevos_bucket():
    assert [bucket_of(path) for path in ("/contacts", "/contacts/attributes", "/events/batch", "/events", "/account")] == [
        "contacts", "contacts", "events", "other", "other",
    ]  # fmt: skip
