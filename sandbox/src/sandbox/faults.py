"""Faults as data: what shall go wrong, how often, and where."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sandbox.http import Answer, refused

Kind = Literal[
    "status",  # answer with `status`; nothing is applied
    "status_after_apply",  # apply, then answer with `status`: the caller cannot know
    "latency",  # wait `seconds`, then go on as usual
    "hang",  # never answer; nothing is applied
    "hang_after_apply",  # apply, then never answer
    "reset",  # close the connection without a word; nothing is applied
    "reset_after_apply",  # apply, then close the connection without a word
]


@dataclass
class Fault:
    """One fault.  It is used up after `times` calls it fits; None is for ever."""

    kind: Kind
    status: int = 500
    times: int | None = 1
    path: str = ""  # a prefix such as /v3/events/batch; empty fits every call
    method: str = ""  # empty fits every method
    every: int = 1  # of the calls it fits, each so-manieth
    seconds: float = 0.0
    body: Any = None  # of a `status` fault, instead of the usual one
    headers: dict[str, str] = field(default_factory=dict)
    fitted: int = 0

    def fits(self, method: str, path: str) -> bool:
        """Whether this call shall go wrong; counted."""
        if self.times == 0 or not path.startswith(self.path) or self.method not in ("", method):
            return False
        self.fitted += 1
        return self.fitted % self.every == 0

    def answer(self, words: Mapping[int, Answer]) -> Answer:
        """What a `status` fault answers, in the words of whoever it stands for."""
        usual = words.get(self.status) or refused(self.status, "bad_request", "A fault on request")
        body = usual.body if self.body is None else self.body
        return Answer(self.status, body, {**usual.headers, **self.headers})

    @property
    def applies(self) -> bool:
        """Whether the call takes effect."""
        return self.kind == "latency" or self.kind.endswith("_after_apply")

    @property
    def answers(self) -> bool:
        """Whether the caller hears anything."""
        return self.kind == "latency" or self.kind.startswith("status")


def take(faults: list[Fault], method: str, path: str) -> Fault | None:
    """The first fault that fits this call, counted down."""
    for fault in faults:
        if fault.fits(method, path):
            if fault.times is not None:
                fault.times -= 1
            return fault
    return None


BREVO_WORDS = {
    401: refused(
        401,
        "unauthorized",
        "We have detected you are using an unrecognised IP address 203.0.113.7. If you performed this action "
        "make sure to add the new IP address in this link: https://app.brevo.com/security/authorised_ips",
    ),
    402: refused(402, "not_enough_credits", "Not enough credits"),
    403: refused(403, "permission_denied", "Permission denied"),
    425: refused(425, "account_in_process", "Account is being processed"),
    429: Answer(
        429,
        {"message": "Too Many Requests"},
        {"x-sib-ratelimit-limit": "10", "x-sib-ratelimit-remaining": "0", "x-sib-ratelimit-reset": "1"},
    ),
    500: refused(500, "internal_error", "Internal server error"),
    524: Answer(524, "error code: 524"),  # the proxy in front of Brevo speaks text, not JSON
}
