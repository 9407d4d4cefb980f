"""How many calls Brevo allows, and when the next may be made.  Pure: time is an argument.

A bucket for each of Brevo's: /contacts, /events, and everything else together.  Each has a limit a second and
one an hour, of which a fraction is ours, because the account is shared.  What the headers say replaces what
was assumed.  https://developers.brevo.com/docs/api-limits
"""

from collections import deque
from collections.abc import Mapping
from typing import Literal

BucketName = Literal["contacts", "events", "other"]

SECOND_S, HOUR_S = 1.0, 3600.0
HOURLY_FROM = (
    5_000  # a limit this large is one an hour; the largest documented a second is 60 (of what we call)
)

GENERAL: dict[BucketName, tuple[int | None, int | None]] = {
    "contacts": (10, 36_000),
    "events": (10, 36_000),  # /events/batch has no row of its own; the headers will tell
    "other": (None, 100),
}
"""Calls a second and an hour on the smallest plans: what we assume until a header says more."""


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


class Bucket:
    """One of Brevo's buckets."""

    def __init__(self, name: BucketName, fraction: float) -> None:
        self._fraction = fraction
        per_second, per_hour = GENERAL[name]
        self._hourly_only = per_second is None
        self._second = Window(self._ours(per_second), SECOND_S)
        self._hour = Window(self._ours(per_hour), HOUR_S)
        self._closed_until = 0.0

    def wait_s(self, now: float) -> float:
        """How long until one more call is allowed; 0 for now."""
        return max(self._second.wait_s(now), self._hour.wait_s(now), self._closed_until - now, 0.0)

    def take(self, now: float) -> None:
        """One call is made."""
        self._second.take(now)
        self._hour.take(now)

    def close(self, now: float, for_s: float) -> None:
        """Nothing more for so long: Brevo said 429, or does not answer."""
        self._closed_until = max(self._closed_until, now + for_s)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take the limit over from an answer."""
        limit = headers.get("x-sib-ratelimit-limit", "")
        if not limit.isdigit() or not int(limit):
            return
        hourly = self._hourly_only or int(limit) > HOURLY_FROM
        (self._hour if hourly else self._second).limit = self._ours(int(limit))

    def _ours(self, limit: int | None) -> int | None:
        return None if limit is None else max(1, int(limit * self._fraction))


class Budget:
    """All buckets."""

    def __init__(self, fraction: float) -> None:
        self._buckets = {name: Bucket(name, fraction) for name in GENERAL}

    def __getitem__(self, name: BucketName) -> Bucket:
        return self._buckets[name]


def bucket_of(path: str) -> BucketName:
    """Which bucket a call counts in."""
    if path == "/contacts" or path.startswith("/contacts/"):
        return "contacts"
    return "events" if path == "/events/batch" else "other"
