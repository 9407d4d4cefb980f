"""How many calls Brevo allows, and when the next may be made.  Pure: time is an argument.

A bucket for each of Brevo's: /contacts, POST /events, and everything else together.  Each has a limit a second and
one an hour, of which a fraction is ours, because the account is shared.  What the headers say replaces what
was assumed.  https://developers.brevo.com/docs/api-limits
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Literal

BucketName = Literal["contacts", "events", "other"]
Plan = Literal["general", "advanced", "extended"]
WindowName = Literal["second", "hour"]

SECOND_S, HOUR_S = 1.0, 3600.0
AHEAD_S = 0.1  # of the even pace calls may be: what a late wake-up missed is made up for, and no more
SECOND_MAX = 60  # the largest limit a second documented, of what we call
HOURLY_FROM = 5_000  # a limit this large is one an hour, whatever its reset says
REST_MAX_S = 60.0  # after a 429; then one call looks again, whatever the header said
REST_MIN_S = 0.1
UNTOLD_S = 1.0  # rest after a 429 that does not say how long
DIGITS_MAX = 15  # of a limit; a longer one is none
LOOK_S = 0.1  # between looks while one call finds out whether a bucket is open again
PROBE_MAX_S = 30.0  # that call has; longer than any call takes (settings.py)

PLANS: dict[Plan, dict[BucketName, tuple[int | None, int | None]]] = {
    "general": {"contacts": (10, 36_000), "events": (10, 36_000), "other": (None, 100)},
    "advanced": {"contacts": (20, 72_000), "events": (20, 72_000), "other": (None, 200)},
    "extended": {"contacts": (60, None), "events": (60, None), "other": (None, 200)},
}
"""Calls a second and an hour: what we assume until a header says more.  /events/batch has no row of its own."""


class Window:
    """At most `limit` calls in any `span_s`; a sliding window, so that no second and no hour ever holds more."""

    def __init__(self, limit: int | None, span_s: float) -> None:
        self.limit = limit
        self._span_s = span_s
        self._taken: deque[float] = deque()

    def wait_s(self, now: float) -> float:
        """How long until one more call is allowed."""
        while self._taken and self._taken[0] <= now - self._span_s:
            self._taken.popleft()
        if self.limit is None or len(self._taken) < self.limit:
            return 0.0
        return self._taken[len(self._taken) - self.limit] + self._span_s - now

    def take(self, now: float) -> None:
        """One call is made."""
        self._taken.append(now)

    def left(self, now: float) -> int:
        """How many more are allowed just now; 0 also where no limit is known."""
        taken = sum(moment > now - self._span_s for moment in self._taken)
        return max((self.limit or 0) - taken, 0)


class Pace:
    """Spreads the calls of a second evenly.

    Seven at once and seven a second later can reach Brevo within one second, because no two calls take equally long.
    """

    def __init__(self) -> None:
        self._next = 0.0  # when the next one is due

    def wait_s(self, now: float) -> float:
        """How long until the next call is due."""
        return max(self._next - AHEAD_S - now, 0.0)

    def take(self, now: float, per_second: int | None) -> None:
        """One call is made, of so many a second."""
        if per_second is not None:
            self._next = max(self._next, now) + SECOND_S / per_second


class Bucket:
    """One of Brevo's buckets.  After a 429 it rests as it was told, and then one call alone finds out."""

    def __init__(self, assumed: tuple[int | None, int | None], fraction: float) -> None:
        self._fraction = fraction
        per_second, per_hour = assumed
        self._hourly_only = per_second is None
        self._second = Window(self._ours(per_second), SECOND_S)
        self._hour = Window(self._ours(per_hour), HOUR_S)
        self._pace = Pace()
        self._closed_until = 0.0
        self._refused = 0  # rests in a row; 0 while calls are answered
        self._probing_until = 0.0  # one call is under way to find out

    def wait_s(self, now: float) -> float:
        """How long until one more call is allowed; 0 for now."""
        probe = LOOK_S if now < self._probing_until else 0.0
        limits = (self._second.wait_s(now), self._hour.wait_s(now), self._pace.wait_s(now))
        return max(*limits, self._closed_until - now, probe, 0.0)

    def take(self, now: float) -> None:
        """One call is made."""
        self._second.take(now)
        self._hour.take(now)
        self._pace.take(now, self._second.limit)
        self._probing_until = now + PROBE_MAX_S if self._refused else 0.0

    @property
    def per_second(self) -> float | None:
        """Calls a second that are ours in the long run; None where no limit is known."""
        paces = [
            limit / s for limit, s in ((self._second.limit, SECOND_S), (self._hour.limit, HOUR_S)) if limit
        ]
        return min(paces, default=None)

    def answered(self, status: int, headers: Mapping[str, str], now: float) -> None:
        """Learn from an answer: the limit, and that it is reached.

        What nobody refuses ends a rest.  A 429 without end doubles it, whatever it says of its length.
        """
        hourly = self._learn(headers)
        rest = rest_s(headers)
        if status == 429:
            if now >= self._closed_until:  # else it was sent together with the one that was refused first
                grown = REST_MIN_S * 2 ** min(self._refused, 10)
                self._refused += 1
                self._closed_until = now + min(max(rest or UNTOLD_S, grown), REST_MAX_S)
        else:
            if now >= self._closed_until:  # else it was sent before the rest
                self._refused = 0
            if headers.get("x-sib-ratelimit-remaining") == "0":  # the next one would be refused
                self._closed_until = max(self._closed_until, now + (rest if hourly else min(rest, SECOND_S)))
        self._probing_until = 0.0

    def unanswered(self) -> None:
        """A call was not made after all, or came to no answer: another may find out."""
        self._probing_until = 0.0

    def _learn(self, headers: Mapping[str, str]) -> bool:
        """Take the limit over from an answer; whether it is one an hour."""
        text = headers.get("x-sib-ratelimit-limit", "")
        if not text.isdecimal() or len(text) > DIGITS_MAX or not int(text):
            return self._hourly_only
        limit = int(text)
        hourly = (
            self._hourly_only
            or limit > HOURLY_FROM
            or (limit > SECOND_MAX and rest_s(headers) > SECOND_S)  # /events/batch may be among "all others"
        )
        (self._hour if hourly else self._second).limit = self._ours(limit)
        return hourly

    @property
    def windows(self) -> tuple[tuple[WindowName, Window], ...]:
        """A second and an hour."""
        return ("second", self._second), ("hour", self._hour)

    def _ours(self, limit: int | None) -> int | None:
        return None if limit is None else max(1, int(limit * self._fraction))


class Budget:
    """All buckets."""

    def __init__(self, fraction: float, plan: Plan = "general") -> None:
        self._buckets = {name: Bucket(assumed, fraction) for name, assumed in PLANS[plan].items()}

    def __getitem__(self, name: BucketName) -> Bucket:
        return self._buckets[name]

    def left(self, now: float) -> Iterator[tuple[BucketName, WindowName, int, int]]:
        """Of each limit that is known: bucket, window, the calls it allows us, and how many of them are left."""
        for name, bucket in self._buckets.items():
            for window, calls in bucket.windows:
                if calls.limit is not None:
                    yield name, window, calls.limit, calls.left(now)


def rest_s(headers: Mapping[str, str]) -> float:
    """How long an answer asks us to wait; 0 where it does not say.

    `x-sib-ratelimit-reset` is documented in seconds and was seen in milliseconds, so it is capped.
    https://github.com/mission-apprentissage/labonnealternance/pull/2710
    """
    try:
        reset = float(headers.get("x-sib-ratelimit-reset", ""))
    except ValueError:
        return 0.0
    seconds = reset / 1000 if reset > HOUR_S else reset
    return min(max(seconds, REST_MIN_S), REST_MAX_S) if seconds == seconds else 0.0  # noqa: PLR0124 - NaN


def bucket_of(method: str, path: str) -> BucketName:
    """Which bucket a call counts in."""
    if path == "/contacts" or path.startswith("/contacts/"):
        return "contacts"
    return "events" if method == "POST" and path in ("/events", "/events/batch") else "other"
