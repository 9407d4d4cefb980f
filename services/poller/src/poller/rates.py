"""How many calls Twilio allows in a second, and when the next may be made.  Pure: time is an argument.

Twilio counts a call when it arrives there, between the moment we send it and the moment we are answered.  So a call
counts here from before it is sent until a second after its answer: whatever the network does, no second at Twilio
ever holds more of ours than the limit.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from shared.config import RateName

SPAN_S = 1.0
BACKFILL_SHARE = 0.8  # of a limit that history may take, so that polling what happens now never waits long


class Window:
    """One limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open = 0
        self._answered: deque[float] = deque()
        self._closed_until = 0.0

    def wait_s(self, now: float, share: float) -> float | None:
        """How long until one more call may begin, 0 for now; None: not before one that is open is answered."""
        while self._answered and self._answered[0] + SPAN_S <= now:
            self._answered.popleft()
        most = max(1, int(self.limit * share))
        over = self._open + len(self._answered) - most
        if over < 0:
            return max(self._closed_until - now, 0.0)
        if over >= len(self._answered):
            return None
        return max(self._answered[over] + SPAN_S - now, self._closed_until - now)

    def used(self, now: float) -> int:
        """How many calls count just now."""
        return self._open + sum(moment + SPAN_S > now for moment in self._answered)

    def begin(self) -> None:
        """A call is about to be sent."""
        self._open += 1

    def end(self, now: float) -> None:
        """It was answered, or given up."""
        self._open -= 1
        self._answered.append(now)

    def close(self, until: float) -> None:
        """Nothing before then: Twilio said 429."""
        self._closed_until = max(self._closed_until, until)


class Rates:
    """All limits, shared by everything that calls one account."""

    def __init__(self, limits: Mapping[RateName, int], fraction: float) -> None:
        """`limits` in calls a second; `fraction` of them is ours, the rest is left to whoever shares the account."""
        self._windows = {name: Window(max(1, int(limit * fraction))) for name, limit in limits.items()}

    def used(self, now: float) -> Iterator[tuple[RateName, int, int]]:
        """Of each limit: its name, the calls a second it allows us, and how many of them count just now."""
        return ((name, window.limit, window.used(now)) for name, window in self._windows.items())

    def wait_s(self, names: Iterable[RateName], now: float, share: float) -> float | None:
        """How long until a call under all of these may begin; None: not before one that is open is answered."""
        longest = 0.0
        for name in names:
            wait_s = self._windows[name].wait_s(now, share)
            if wait_s is None:
                return None
            longest = max(longest, wait_s)
        return longest

    def begin(self, names: Iterable[RateName]) -> None:
        """A call under all of these is about to be sent."""
        for name in names:
            self._windows[name].begin()

    def end(self, names: Iterable[RateName], now: float) -> None:
        """It was answered, or given up."""
        for name in names:
            self._windows[name].end(now)

    def close(self, name: RateName, until: float) -> None:
        """Nothing under this one before then."""
        self._windows[name].close(until)

    def learn(self, name: RateName, headers: Mapping[str, str]) -> None:
        """Take over a limit that is lower than ours.

        `X-Rate-Limit-Limit` stands in TaskRouter's OpenAPI without its unit, so it can only make us slower.
        """
        limit = headers.get("x-rate-limit-limit", "")
        if limit.isdecimal() and 0 < int(limit) < self._windows[name].limit:
            self._windows[name].limit = int(limit)
