"""W3C trace context, carried from the webhook to Brevo in message headers.  https://www.w3.org/TR/trace-context/"""

import re
import secrets

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")


def start() -> str:
    """A traceparent for something that begins here."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def follow(traceparent: str | None) -> str:
    """A traceparent for what this one caused: the same trace, another span; a new trace if there is none."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return f"00-{match[1]}-{secrets.token_hex(8)}-{match[2]}" if match else start()
