"""What a replay is about, from the words of whoever asks.  Pure: no name is looked up here."""

import itertools
import re
from collections.abc import Iterable

from shared.event import epoch_ms
from shared.plan import Selection

CUSTOMERS_MAX = 10_000  # named at once; more than that is a matter of --since or --subjects
SEQUENCE_MAX = 2**63 - 1
EMPTY = "an empty text"

SUBJECT = re.compile(r"twilio(?=\.)(\.[^\s.*>]+|\.\*)*(\.>)?")
_SEQUENCE = re.compile(r"([1-9]\d{0,18})?(?:(-|\.\.)([1-9]\d{0,18})?)?", re.ASCII)
_TASK = re.compile(r"(WT|CH|CA|KD)[0-9a-f]{32}")


class SelectionError(ValueError):
    """A subject, time, sequence, task or customer that is none; says what to write."""


def selection(
    *,
    subjects: Iterable[str] = (),
    since: str | None = None,
    until: str | None = None,
    sequence: str | None = None,
    tasks: Iterable[str] = (),
    customers: Iterable[str] = (),
) -> Selection:
    """Whom Brevo is told of again.  Each of `subjects`, `tasks`, `customers` may hold several, by comma.

    Raises SelectionError, also for what was given and is empty, as a variable of a shell can be: else all would be meant.
    """
    since_ms, until_ms = _moment(since), _moment(until)
    if since_ms is not None and until_ms is not None and until_ms <= since_ms:
        raise SelectionError(f"{until} is not after {since}: nothing happened between them")
    first, last = sequences(sequence)
    whom = _words("customer", customers)
    if len(whom) > CUSTOMERS_MAX:
        raise SelectionError(f"{len(whom):,} customers are named: at most {CUSTOMERS_MAX:,} at once")
    return Selection(
        subjects=tuple(_subject(one) for one in _words("subject", subjects)),
        since_ms=since_ms,
        until_ms=until_ms,
        first=first,
        last=last,
        tasks=tuple(_task(one) for one in _words("task", tasks)),
        customers=whom,
    )


def sequences(text: str | None) -> tuple[int, int]:
    """N is one event, N- all from it on, -M all up to it, N-M those between, M included; 0 is no bound.

    `..` is read as `-`, and None is all of them.  Raises SelectionError.
    """
    if text is None:
        return 0, 0
    found = _SEQUENCE.fullmatch(text)
    first, last = (int(found[1] or 0), int(found[3] or 0)) if found else (0, 0)
    if found and not found[2]:
        last = first
    if not (first or last) or (last and last < first) or max(first, last) > SEQUENCE_MAX:
        raise SelectionError(f"{text or EMPTY} is no sequence of TWILIO: write 17, 17-40, 17- or -40")
    return first, last


def _words(what: str, given: Iterable[str]) -> tuple[str, ...]:
    """Each once, in the order given."""
    said = [[word for part in words.split(",") if (word := part.strip())] for words in given]
    if not all(said):
        raise SelectionError(f"{EMPTY} names no {what}: leave the option out where all are meant")
    return tuple(dict.fromkeys(itertools.chain(*said)))


def _moment(text: str | None) -> int | None:
    try:
        return None if text is None else epoch_ms(text)
    except ValueError:
        raise SelectionError(
            f"{text or EMPTY} is no date: write 2024-01-01 (which begins at 00:00 UTC), or 2024-01-01T08:00:00Z"
        ) from None


def _subject(text: str) -> str:
    if not SUBJECT.fullmatch(text):
        raise SelectionError(
            f"{text} is no subject of TWILIO: write twilio.*.*.taskrouter.> or twilio.*.*.taskrouter.task.completed"
        )
    return text


def _task(text: str) -> str:
    if not _TASK.fullmatch(text):
        raise SelectionError(
            f"{text} names no interaction: write the sid of a task (WT…), a conversation (CH…), a call (CA…) or an interaction (KD…)"
        )
    return text
