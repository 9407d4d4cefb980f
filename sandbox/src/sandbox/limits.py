"""Brevo's rate limits: a window a second and a window an hour, a bucket per group of endpoints.

https://developers.brevo.com/docs/api-limits
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Bucket = Literal["contacts", "events", "other"]

SECOND, HOUR = 1, 3600


@dataclass(frozen=True)
class Limits:
    """Calls allowed; None is no limit.  The defaults are the tier General's."""

    contacts_per_s: int | None = 10
    contacts_per_h: int | None = 36_000
    events_per_s: int | None = 10
    events_per_h: int | None = 36_000
    other_per_h: int | None = 100

    def of(self, bucket: Bucket) -> dict[int, int | None]:
        """The limit of each window, by its length in seconds."""
        match bucket:
            case "contacts":
                return {SECOND: self.contacts_per_s, HOUR: self.contacts_per_h}
            case "events":
                return {SECOND: self.events_per_s, HOUR: self.events_per_h}
            case "other":
                return {HOUR: self.other_per_h}

    def scaled(self, hourly: int) -> "Limits":
        """With so many times the calls an hour."""
        per_h = {name: most * hourly for name in PER_HOUR if (most := getattr(self, name)) is not None}
        return replace(self, **per_h)


PER_HOUR = ("contacts_per_h", "events_per_h", "other_per_h")
UNLIMITED = Limits(None, None, None, None, None)


def bucket_of(method: str, path: str) -> Bucket:
    """Which bucket a call is counted in.  `/events/batch` has no row of its own: counted with the events."""
    if path == "/contacts" or path.startswith("/contacts/"):
        return "contacts"
    return "events" if method == "POST" and path in ("/events", "/events/batch") else "other"


@dataclass
class _Window:
    began: float = 0.0
    spent: int = 0


@dataclass
class Meter:
    """Counts calls in fixed windows, each beginning with the first call after the last one ended."""

    limits: Limits
    _windows: dict[tuple[Bucket, int], _Window] = field(default_factory=dict)

    def count(self, bucket: Bucket, now: float) -> tuple[bool, Mapping[str, str]]:
        """Whether one more call is allowed, and the headers that say so; a call refused is not counted."""
        open_ = [(length, most, self._window(bucket, length, now)) for length, most in self._limited(bucket)]
        allowed = all(window.spent < most for _, most, window in open_)
        if allowed:
            for _, _, window in open_:
                window.spent += 1
        if not open_:
            return True, {}
        # Brevo's headers tell of one window: the second's where there is one, unless another is what refuses.
        length, most, window = next((one for one in open_ if one[2].spent >= one[1]), open_[0])
        return allowed, {
            "x-sib-ratelimit-limit": str(most),
            "x-sib-ratelimit-remaining": str(most - window.spent),
            "x-sib-ratelimit-reset": str(max(1, round(window.began + length - now))),
        }

    def _limited(self, bucket: Bucket) -> list[tuple[int, int]]:
        return [(length, most) for length, most in self.limits.of(bucket).items() if most is not None]

    def _window(self, bucket: Bucket, length: int, now: float) -> _Window:
        window = self._windows.setdefault((bucket, length), _Window())
        if now >= window.began + length:
            window.began, window.spent = now, 0
        return window
