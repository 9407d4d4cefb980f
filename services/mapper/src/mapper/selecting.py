"""Whom a selection of raw events is about."""

import re
from collections.abc import Callable, Iterable

from faststream.nats import NatsBroker

from mapper.draft import Draft
from mapper.heard import Heard, UnreadableError, read
from mapper.step import Policy
from shared.event import from_message
from shared.past import past
from shared.plan import Asked, Selection
from shared.topology import MAPPER

_SUBJECT = re.compile(r"twilio(\.(\*|[^\s.*>]+))*(\.>)?")

Become = Callable[[Iterable[str]], set[str]]
"""Who customers of the book in force are in the draft."""


class SelectionError(Exception):
    """The selection cannot be read; what to write instead."""


async def selected(
    broker: NatsBroker, draft: Draft, policy: Policy, asked: Asked, *, become: Become
) -> set[str]:
    """The customers of the draft that are told again.  Raises SelectionError."""
    selection = asked.selection
    also = become(asked.again)
    if selection.empty:
        return also
    named = become(selection.customers)
    if selection.customers and _only_names(selection, tasks=False):
        return also | named
    if _only_names(selection, tasks=True):
        found = draft.owners_of(set(selection.tasks))
    else:
        found = await _of_events(broker, draft, policy, selection)
    return also | (found & named if selection.customers else found)


def _only_names(selection: Selection, *, tasks: bool) -> bool:
    """Whether nothing is said of the events themselves; nor of tasks, unless they are looked at."""
    plain = Selection(customers=selection.customers, tasks=selection.tasks if tasks else ())
    return selection == plain


async def _of_events(broker: NatsBroker, draft: Draft, policy: Policy, selection: Selection) -> set[str]:
    """Whose interactions the raw events are about that fit."""
    patterns = [_pattern(subject) for subject in selection.subjects]
    keys = set(draft.interactions_named(set(selection.tasks)).values())
    last = min(selection.last or draft.sequence, draft.sequence)
    found: set[str] = set()
    # One reader without a filter: JetStream refuses filters that overlap.
    async for messages in past(broker, MAPPER.stream, after=max(selection.first - 1, 0), to=last):
        sids: set[str] = set()
        for message in messages:
            if patterns and not any(pattern.fullmatch(message.subject) for pattern in patterns):
                continue
            try:
                event = from_message(message.subject, message.headers or {}, message.data)
                heard = read(event, policy.reading)
            except (UnreadableError, ValueError):
                continue
            if heard is not None and _in_time(heard, selection):
                sids.update(heard.links)
        links = draft.interactions_named(sids)
        found |= draft.owners_of({sid for sid, key in links.items() if not keys or key in keys})
    return found if keys or not selection.tasks else set()


def _in_time(heard: Heard, selection: Selection) -> bool:
    after = selection.since_ms is None or heard.time_ms >= selection.since_ms
    return after and (selection.until_ms is None or heard.time_ms < selection.until_ms)


def _pattern(subject: str) -> re.Pattern[str]:
    if not _SUBJECT.fullmatch(subject):
        raise SelectionError(
            f"no subject of TWILIO is like {subject!r}: write for example twilio.*.*.taskrouter.>"
        )
    return re.compile(r"\.".join(_token(token) for token in subject.split(".")))


def _token(token: str) -> str:
    return {"*": r"[^.]+", ">": r".+"}.get(token, re.escape(token))
