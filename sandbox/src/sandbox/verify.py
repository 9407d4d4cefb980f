"""Is what Brevo holds what it shall hold?  And how long did it take?  Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sandbox.expected import Contact

State = Mapping[str, Any]
"""What GET /_sandbox/state gives."""

PREFIX = "tajo-"  # of every ext_id of ours

Key = tuple[str, str, str]
"""An event: event_date, event_name, task_sid."""


@dataclass(frozen=True)
class Sent:
    """When a webhook was first sent, and what it tells of happened: epoch milliseconds."""

    sent_ms: int
    moments: tuple[int, ...]


def key_of(contact: Mapping[str, Any]) -> str:
    """What a contact is found by: its email, else its phone."""
    return str(contact.get("email") or contact["attributes"].get("SMS", ""))


def timeline(state: State, contact_id: int) -> list[dict[str, Any]]:
    """The contact's events, as they happened."""
    mine = (event for event in state["events"] if event["contact_id"] == contact_id)
    return sorted(mine, key=lambda event: (event["event_date"], event["event_name"]))


def event_key(event: Mapping[str, Any]) -> Key:
    """What an event is compared by."""
    return event["event_date"], event["event_name"], str(event["event_properties"].get("task_sid", ""))


def differences(state: State, expected: Iterable[Contact]) -> list[str]:
    """Every difference, one line each; none when Brevo holds exactly what was expected."""
    found: list[str] = []
    held = {key_of(contact): contact for contact in state["contacts"]}
    if len(held) < len(state["contacts"]):
        found.append("two contacts have the same email or phone")
    for contact in expected:
        if actual := held.pop(contact.key, None):
            found += [f"{contact.key}: {what}" for what in _of_contact(state, actual, contact)]
        else:
            found.append(f"{contact.key}: there is no such contact")
    found += [f"{key}: nobody expected this contact" for key in held]
    found += [f"{event['name']}: an event that belongs to no contact" for event in state["orphans"]]
    return found


def arrived(state: State, expected: Iterable[Contact]) -> int:
    """How many of the expected events are there."""
    wanted = Counter(event.key for contact in expected for event in contact.events)
    return (wanted & Counter(map(event_key, state["events"]))).total()


def _of_contact(state: State, actual: Mapping[str, Any], expected: Contact) -> Iterable[str]:
    attributes = dict(actual["attributes"])
    if not str(attributes.pop("EXT_ID", "")).startswith(PREFIX):
        yield f"its ext_id does not begin with {PREFIX}"
    for name in sorted(attributes.keys() | expected.attributes.keys()):
        is_, shall = attributes.get(name), expected.attributes.get(name)
        if is_ != shall:
            yield f"{name} is {is_!r}, expected {shall!r}"
    if tuple(actual["listIds"]) != expected.lists:
        yield f"it is in the lists {actual['listIds']}, expected {list(expected.lists)}"
    got = Counter(event_key(event) for event in timeline(state, actual["id"]))
    wanted = Counter(event.key for event in expected.events)
    yield from (f"{_told(key)} is missing" for key in (wanted - got).elements())
    yield from (f"{_told(key)} is too many" for key in (got - wanted).elements())


def _told(key: Key) -> str:
    date, name, task_sid = key
    return f"{name} of {date}, task {task_sid or 'none'}"


def latencies_ms(state: State, sent: Sequence[Sent]) -> list[int]:
    """From a webhook's first try to Brevo's receipt of the event it caused, sorted.

    Both are known by the moment the thing happened at Twilio, to the millisecond.  What Brevo had before
    is left out.
    """
    first: dict[int, int] = {}
    for webhook in sent:
        for moment in webhook.moments:
            first[moment] = min(first.get(moment, webhook.sent_ms), webhook.sent_ms)
    took = []
    for event in state["events"]:
        moment = round(datetime.fromisoformat(event["event_date"]).timestamp() * 1000)
        if moment in first and event["received_ms"] >= first[moment]:
            took.append(event["received_ms"] - first[moment])
    return sorted(took)


def quantile(ordered: Sequence[int], share: float) -> int:
    """The value that this share of the others does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
