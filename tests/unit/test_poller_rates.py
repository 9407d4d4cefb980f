"""However long calls take, no second at Twilio holds more of ours than the limit."""

from hypothesis import given
from hypothesis import strategies as some

from poller.rates import BACKFILL_SHARE, Rates

delays = some.lists(some.tuples(some.floats(0, 2), some.floats(0, 2)), min_size=1, max_size=60)


def arrivals(
    rates: Rates, delays: list[tuple[float, float]], share: float = 1.0
) -> tuple[list[float], float]:
    """Make calls as fast as allowed, each so long on its way there and back; when they came, and when the last began."""
    now, open_, came = 0.0, [], []
    for there, back in delays:
        while (wait_s := rates.wait_s(["x"], now, share)) != 0.0:
            now = min(end for end in open_) if wait_s is None else now + wait_s
            for end in sorted(open_):
                if end <= now:
                    open_.remove(end)
                    rates.end(["x"], end)
        rates.begin(["x"])
        came.append(now + there)
        open_.append(now + there + back)
    return sorted(came), now


@given(delays, some.integers(1, 7))
def test_no_second_holds_more_than_the_limit(delays, limit):
    came, _ = arrivals(Rates({"x": limit}, 1.0), delays)

    for first in came:
        assert sum(1 for moment in came if first <= moment < first + 1.0 - 1e-9) <= limit


def test_calls_that_take_no_time_use_the_whole_limit():
    _, last = arrivals(Rates({"x": 10}, 1.0), [(0.0, 0.0)] * 41)

    assert last <= 4.0 + 1e-9


def test_only_a_fraction_is_ours_and_never_nothing():
    came, _ = arrivals(Rates({"x": 10}, 0.5), [(0.0, 0.0)] * 11)
    assert came[5] >= 1.0

    came, _ = arrivals(Rates({"x": 1}, 0.1), [(0.0, 0.0)] * 2)
    assert came[1] >= 1.0


def test_history_leaves_room_for_what_happens_now():
    rates = Rates({"x": 10}, 1.0)
    for _ in range(int(10 * BACKFILL_SHARE)):
        assert rates.wait_s(["x"], 0.0, BACKFILL_SHARE) == 0.0
        rates.begin(["x"])

    assert rates.wait_s(["x"], 0.0, BACKFILL_SHARE) is None
    assert rates.wait_s(["x"], 0.0, 1.0) == 0.0


def test_all_limits_of_a_call_count():
    rates = Rates({"wide": 100, "narrow": 1}, 1.0)
    rates.begin(["wide", "narrow"])
    rates.end(["wide", "narrow"], 5.0)

    assert rates.wait_s(["wide"], 5.5, 1.0) == 0.0
    assert rates.wait_s(["wide", "narrow"], 5.5, 1.0) == 0.5


def test_after_a_429_nothing_goes_before_it_may():
    rates = Rates({"x": 10}, 1.0)
    rates.close("x", 7.0)

    assert rates.wait_s(["x"], 4.0, 1.0) == 3.0
    assert rates.wait_s(["x"], 7.0, 1.0) == 0.0


def test_a_header_makes_us_slower_and_never_faster():
    rates = Rates({"x": 10}, 1.0)
    for said in ("600", "0", "", "many", "2"):
        rates.learn("x", {"x-rate-limit-limit": said})

    came, _ = arrivals(rates, [(0.0, 0.0)] * 3)
    assert came[2] >= 1.0
