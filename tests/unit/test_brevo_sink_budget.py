"""The rate limiter on a clock of its own: no window ever holds more than is ours, and nothing is wasted."""

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from brevo_sink.budget import Budget, Window, bucket_of
from sandbox.limits import Limits, Meter


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

    assert calls >= 0.95 * 7 * 100


def test_the_hour_is_kept_too():
    bucket, now, calls = Budget(1.0)["other"], 0.0, 0
    while (wait := bucket.wait_s(now)) == 0.0:
        bucket.take(now)
        calls += 1
        now += 1.0

    assert calls == 100
    assert wait == 3600 - now


def answered(bucket, now=0.0, status=200, **headers):
    bucket.answered(status, {f"x-sib-ratelimit-{name}": text for name, text in headers.items()}, now)


def within(bucket, now, seconds=0.999) -> int:
    """So many calls may be made within this time."""
    calls, end = 0, now + seconds
    while now < end:
        if wait := bucket.wait_s(now):
            now += wait
        else:
            bucket.take(now)
            calls += 1
    return calls


@pytest.mark.parametrize(("limit", "per_second"), [("20", 14), ("60", 42), ("1000", 700)])
def test_a_limit_is_learned_from_an_answer(limit, per_second):
    bucket = Budget(0.7)["contacts"]

    answered(bucket, limit=limit, remaining="1", reset="1")

    assert within(bucket, 0.5) == per_second


def test_an_hourly_limit_is_learned_as_one_an_hour():
    bucket = Budget(0.5)["contacts"]

    answered(bucket, limit="72000")

    for number in range(36_000):
        bucket.take(number * 0.09)
    assert bucket.wait_s(36_000 * 0.09) > 300


def test_a_bucket_that_turns_out_to_be_an_hourly_one_is_kept_to_it():
    bucket, now, calls = Budget(0.7)["events"], 0.0, 0

    answered(bucket, limit="100", remaining="99", reset="3599")

    while now < 3600:
        if wait := bucket.wait_s(now):
            now += wait
        else:
            bucket.take(now)
            calls += 1
    assert calls == 70


@pytest.mark.parametrize(
    ("plan", "fraction", "per_second"), [("general", 0.7, 7), ("advanced", 0.5, 10), ("extended", 1, 60)]
)
def test_it_says_how_many_calls_a_second_are_ours(plan, fraction, per_second):
    budget = Budget(fraction, plan)

    assert budget["contacts"].per_second == per_second
    assert budget["other"].per_second == pytest.approx(fraction * (100 if plan == "general" else 200) / 3600)


@pytest.mark.parametrize(("plan", "a_second"), [("general", 7), ("advanced", 14), ("extended", 42)])
def test_a_larger_plan_may_do_more_from_the_start(plan, a_second):
    assert within(Budget(0.7, plan)["events"], 0.0) == a_second


def test_nonsense_in_a_header_teaches_nothing():
    bucket = Budget(1.0)["events"]
    for nonsense in ("", "0", "-1", "many", "1.5", "9" * 5000):
        answered(bucket, limit=nonsense, reset=nonsense)

    assert within(bucket, 1.0) == 10


@pytest.mark.parametrize(
    ("reset", "rest"), [("2.5", 2.5), ("30000", 30.0), ("850", 60.0), ("0", 0.1), ("", 1.0), ("nan", 1.0), ("-4", 0.1)]
)  # fmt: skip
def test_after_a_429_the_bucket_rests_as_long_as_it_was_told_in_seconds_or_milliseconds(reset, rest):
    bucket = Budget(1.0)["events"]

    answered(bucket, now=10.0, status=429, reset=reset)

    assert bucket.wait_s(10.0) == pytest.approx(rest)
    assert bucket.wait_s(10.01 + rest) == 0.0


def test_after_a_rest_one_call_alone_finds_out_and_then_all_go_on():
    bucket = Budget(1.0)["events"]
    answered(bucket, now=10.0, status=429, reset="1")

    assert within(bucket, 11.0) == 1
    answered(bucket, now=12.0, limit="10", remaining="9", reset="1")

    assert within(bucket, 12.0) == 10


def test_a_call_that_finds_out_nothing_leaves_it_to_another():
    bucket = Budget(1.0)["events"]
    answered(bucket, now=10.0, status=429, reset="1")

    assert within(bucket, 11.0) == 1
    bucket.unanswered()
    assert within(bucket, 12.0) == 1
    assert within(bucket, 50.0) == 1  # the call before it never ended


def test_a_429_without_end_is_asked_ever_more_seldom():
    bucket, now, calls = Budget(1.0)["contacts"], 0.0, 0
    while now < 3600:
        if wait := bucket.wait_s(now):
            now += wait
            continue
        bucket.take(now)
        calls += 1
        answered(bucket, now=now, status=429, reset="0")

    assert calls < 80


def test_many_refused_together_are_one_rest():
    bucket = Budget(1.0)["contacts"]
    for _ in range(8):
        answered(bucket, now=5.0, status=429, reset="1")

    assert bucket.wait_s(5.0) == 1.0


@pytest.mark.parametrize("reset", ["1", "1000"])
def test_what_others_have_used_up_is_not_asked_for(reset):
    bucket = Budget(0.7)["contacts"]
    bucket.take(1.0)

    answered(bucket, now=1.1, limit="10", remaining="0", reset=reset)

    assert bucket.wait_s(1.1) == pytest.approx(1.0)


def test_each_call_counts_in_brevos_bucket():
    calls = [
        "POST /contacts",
        "GET /contacts/attributes",
        "POST /events/batch",
        "POST /events",
        "GET /events",
        "GET /account",
    ]

    assert [bucket_of(*call.split()) for call in calls] == [
        "contacts", "contacts", "events", "events", "other", "other",
    ]  # fmt: skip


def largest(moments, span_s) -> int:
    """The most of these moments that lie within one span, however it is laid."""
    most = start = 0
    for end, moment in enumerate(moments):
        while moments[start] <= moment - span_s:
            start += 1
        most = max(most, end - start + 1)
    return most


@pytest.mark.parametrize(("name", "calls"), [("contacts", 100_000), ("events", 300_000)])
def test_100_000_contacts_and_300_000_events_exceed_no_window_and_waste_none(name, calls):
    """Each event a call of its own; each call arrives up to 0.3 s after it was sent, where the local Brevo counts it."""
    dice, bucket, meter = random.Random(5), Budget(0.7)[name], Meter(Limits())
    now, sent, due, refused = 0.0, [], [], 0
    while len(sent) < calls:
        if wait := bucket.wait_s(now):
            now += wait
            while due and due[0] <= now:
                arrived = heapq.heappop(due)
                allowed, headers = meter.count(name, arrived)
                refused += not allowed
                bucket.answered(200 if allowed else 429, headers, arrived)
            continue
        bucket.take(now)
        sent.append(now)
        heapq.heappush(due, now + dice.uniform(0, 0.3))

    assert refused == 0
    assert largest(sent, 0.999_999) == 7  # a second's sum of floating point numbers may miss it by that
    assert largest(sent, 3599.999_999) <= 25_200
    assert calls / now > 0.99 * 7


def test_events_in_full_batches_stay_within_every_window_too():
    bucket, now, sent = Budget(0.7)["events"], 0.0, []
    for _ in range(300_000 // 200):
        while wait := bucket.wait_s(now):
            now += wait
        bucket.take(now)
        sent.append(now)

    assert largest(sent, 0.999_999) == 7
    assert now < 1500 / 7


def test_late_wake_ups_cost_hardly_a_call():
    bucket, now, calls = Budget(0.7)["contacts"], 0.0, 0
    while now < 100:
        if wait := bucket.wait_s(now):
            now += wait + 0.03  # a busy machine
        else:
            bucket.take(now)
            calls += 1

    assert calls >= 0.95 * 7 * 100
