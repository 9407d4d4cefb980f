"""W3C trace context, carried from the webhook to Brevo in message headers.  https://www.w3.org/TR/trace-context/

`tracestate` says which span the header's own was caused by, for who publishes a message learns of it only from there:
what waits in an outbox may be published by another process than the one that put it there.
"""

import random
import re
import secrets
from collections.abc import Mapping

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
LENGTH = 55  # characters of a traceparent

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_CAUSE = re.compile(r"(?:^|,)\s*tajo=([0-9a-f]{16})")
_ODD = frozenset("13579bdf")


def start(ratio: float = 0.0) -> str:
    """A traceparent for something that begins here; so many of them, between 0 and 1, say that they are sampled."""
    sampled = ratio > 0 and random.random() < ratio  # noqa: S311 - chooses what is recorded, guards nothing
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{'01' if sampled else '00'}"


def follow(traceparent: str | None) -> str:
    """A traceparent for what this one caused: the same trace, another span; a new trace if there is none."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return f"00-{match[1]}-{secrets.token_hex(8)}-{match[3]}" if match else start()


def sampled(traceparent: str) -> bool:
    """Whether the trace is recorded: the cheapest look there is, for it is made for each message."""
    return traceparent[-1:] in _ODD and len(traceparent) == LENGTH


def chosen(traceparent: str) -> str:
    """The same, recorded."""
    return f"{traceparent[:-2]}01"


def ids(traceparent: str) -> tuple[str, str] | None:
    """Trace id and span id; None for what is no traceparent."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return (match[1], match[2]) if match else None


def because(cause: str) -> dict[str, str]:
    """What stands beside the traceparent of a message that follows from `cause`; nothing where it is not recorded."""
    known = ids(cause) if sampled(cause) else None
    return {TRACESTATE: f"tajo={known[1]}"} if known else {}


def cause_of(headers: Mapping[str, str]) -> str:
    """The traceparent of what a message follows from, as `because` wrote it; empty where nobody did."""
    traceparent, found = headers.get(TRACEPARENT, ""), _CAUSE.search(headers.get(TRACESTATE, ""))
    return f"{traceparent[:36]}{found[1]}{traceparent[52:]}" if found and ids(traceparent) else ""
