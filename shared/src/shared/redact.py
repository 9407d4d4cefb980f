"""What must not be stored is taken out before anything is: message bodies, and card numbers.  Pure.

Card numbers are looked for in free text and in attributes we do not know.  One in ten millisecond timestamps
passes Luhn, so fields known to hold sids, times, phones and numbers are never touched.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

CARD = "[card redacted]"
BODY = "[redacted]"
DIGITS_MIN, DIGITS_MAX = 13, 19  # of a payment card: ISO/IEC 7812

Pairs = Sequence[tuple[str, str]]

_BODIES = frozenset({"Body", "MessageBody", "MessageSubject", "body"})  # the last over REST
_BODY_NAMES = tuple(f'"{name}"' for name in _BODIES)
_JSON_TEXTS = frozenset({
    "TaskAttributes", "task_attributes", "WorkerAttributes", "worker_attributes", "Attributes", "attributes",
    "data",
})  # fmt: skip
_KNOWN = frozenset({
    "from", "to", "caller", "called", "phone", "outbound_to", "customerAddress", "address", "identity",
    "Address", "ProxyAddress", "ProjectedAddress", "AuthorAddress", "Author", "author", "Identity", "ClientIdentity",
    "time", "timestamp", "Timestamp", "id", "Index", "index", "TaskAge", "TaskPriority", "TaskVersion", "WorkerVersion",
})  # fmt: skip
_KNOWN_ENDS = (
    "sid",
    "Sid",
    "_ms",
    "Ms",
    "_date",
    "Date",
    "_at",
    "_time",
    "Time",
    "Created",
    "Updated",
    "_age",
    "_version",
)

# + begins a phone number, in E.164.  What stands before is looked at behind the first digit: a search that begins
# with a digit skips what is none, several times as fast.
_RUN = re.compile(r"\d(?<![\d+]\d)(?:[ -]?\d){12,}")
_ASCII_RUN = re.compile(
    _RUN.pattern, re.ASCII
)  # the same in a text that is all ASCII, in two thirds of the time
_PREFIX = re.compile(
    r"4|5[0-8]|6[0-9]|3[0-9]|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)"
)  # ISO/IEC 7812 ranges of payment cards: https://en.wikipedia.org/wiki/Payment_card_number


def pairs(fields: Pairs, *, keep_bodies: bool) -> Pairs:
    """A form's parameters without what must not be stored; the same object where nothing is taken out."""
    clean = [(name, _text(name, value, keep_bodies)) for name, value in fields]
    return clean if clean != list(fields) else fields


def value(given: Any, *, keep_bodies: bool, name: str = "") -> Any:
    """The same for a JSON value, however deep; the same object where nothing is taken out."""
    if isinstance(given, str):
        return _text(name, given, keep_bodies)
    if isinstance(given, dict):
        clean = {key: value(one, keep_bodies=keep_bodies, name=key) for key, one in given.items()}
        return clean if any(clean[key] is not one for key, one in given.items()) else given
    if isinstance(given, list):
        items = [value(one, keep_bodies=keep_bodies, name=name) for one in given]
        return items if any(new is not old for new, old in zip(items, given, strict=True)) else given
    if isinstance(given, int) and not _known(name) and is_card(str(given)):
        return CARD
    return given


def _text(name: str, text: str, keep_bodies: bool) -> str:
    if name in _BODIES and not keep_bodies:
        return BODY if text else text
    if len(text) < DIGITS_MIN or _known(name):
        return text
    if name in _JSON_TEXTS and text[0] in "{[":
        return _json_text(text, keep_bodies)
    return cards(text)


def _json_text(text: str, keep_bodies: bool) -> str:
    # \u may write a digit of another script, or a name.
    if "\\u" not in text and not _run(text).search(text) and not any(name in text for name in _BODY_NAMES):
        return text
    try:
        given = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return cards(text)
    clean = value(given, keep_bodies=keep_bodies)
    return text if clean is given else msgspec.json.encode(clean).decode()


def _known(name: str) -> bool:
    return name.rpartition(".")[2] in _KNOWN or name.endswith(_KNOWN_ENDS)


def cards(text: str) -> str:
    """The text with each card number in it replaced, written plainly or in groups, in the digits of whatever script."""
    run = _run(text)
    return run.sub(lambda found: _clean(found[0]), text) if run.search(text) else text


def _run(text: str) -> re.Pattern[str]:
    return _ASCII_RUN if text.isascii() else _RUN


def _clean(run: str) -> str:
    """A run of digit groups; a card is one group or several neighbours.  Linear: no card has more than 19 digits."""
    parts = re.split(r"([ -])", run)
    groups, gaps = parts[::2], [*parts[1::2], ""]
    clean: list[str] = []
    at = 0
    while at < len(groups):
        end = _card_end(groups, at)
        clean += (CARD, gaps[end - 1]) if end else (groups[at], gaps[at])
        at = end or at + 1
    return "".join(clean)


def _card_end(groups: Sequence[str], first: int) -> int:
    """Behind the last group of the longest card that begins with this one; 0 where none does."""
    digits, end = "", 0
    for last in range(first, len(groups)):
        digits += groups[last]
        if len(digits) > DIGITS_MAX:
            break
        if is_card(digits):
            end = last + 1
    return end


def is_card(digits: str) -> bool:
    """Whether these are 13 to 19 digits of a payment card: its prefix, and Luhn's sum."""
    if not DIGITS_MIN <= len(digits) <= DIGITS_MAX:
        return False
    plain = digits if digits.isascii() else "".join(str(int(digit)) for digit in digits)
    return _PREFIX.match(plain) is not None and _luhn(plain)


def _luhn(digits: str) -> bool:
    doubled = (2 * int(digit) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(number - 9 * (number > 9) for number in doubled)) % 10 == 0
