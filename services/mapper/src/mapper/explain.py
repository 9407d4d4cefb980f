"""Why Brevo's contact says what it says: a customer, with what made each attribute.  Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from mapper.customer import Aggregates, Customer, contact
from mapper.identity import Known, shared_id
from mapper.interaction import Interaction
from mapper.step import Policy
from shared.command import Value
from shared.event import rfc3339
from shared.plain import plain

_OF_EACH: dict[str, Callable[[Interaction], str]] = {
    "total_conversations": lambda one: one.sid,
    "last_conversation_date": lambda one: f"{one.sid} began {rfc3339(one.start_ms)}",
    "first_contact_date": lambda one: f"{one.sid} began {rfc3339(one.start_ms)}",
    "preferred_channel": lambda one: f"{one.sid} {one.channel}",
    "abandoned_conversations": lambda one: f"{one.sid} task.canceled" if one.abandoned else "",
    "open_tasks": lambda one: f"{one.sid} has {one.open_tasks} open" if one.open_tasks else "",
    "avg_wait_time": lambda one: _span(one, one.wait_ms, "task-queue.entered", "reservation.accepted") if one.handled else "",
    "avg_handle_time": lambda one: _span(one, one.handle_ms, "reservation.accepted", "task.completed"),
    "last_csat_score": lambda one: ", ".join(
        f"{one.sid} {name} {plain(said.value)} at {rfc3339(said.ms)} ({said.id})" for name, said in one.surveys.items()
    ),
}  # fmt: skip


class Fact(Struct, frozen=True, rename="camel"):
    """An attribute of the contact, and what it follows from."""

    attribute: str
    value: Value
    source: str
    because: tuple[str, ...]


class Explained(Struct, frozen=True, rename="camel"):
    """A customer."""

    ext_id: str
    told: bool  # whether Brevo was told of it
    identifiers: tuple[str, ...]
    interactions: tuple[str, ...]
    facts: tuple[Fact, ...]
    list_ids: tuple[int, ...]
    events: tuple[str, ...]  # ids of the domain events Brevo was told of
    waiting: tuple[str, ...]  # and of those that still wait


def explain(
    customer: Customer,
    known: Mapping[str, Known],
    interactions: Sequence[Interaction],
    aggregates: Aggregates,
    policy: Policy,
) -> Explained:
    """Everything that is known of a customer and what follows from it."""
    config = policy.config
    wanted = contact(customer, aggregates, known, config)
    counted = [one for one in interactions if one.channel in config.flex.channels]
    facts = [
        Fact(field.attribute, wanted.attributes[field.attribute], source, tuple(_because(source, customer, counted)))
        for source, field in config.fields.items()
        if field.attribute in wanted.attributes
    ]  # fmt: skip
    return Explained(
        ext_id=customer.id,
        told=bool(customer.told),
        identifiers=tuple(_identifier(key, one) for key, one in sorted(known.items()) if one.customer == customer.id),
        interactions=tuple(_interaction(one, counted=one in counted) for one in interactions),
        facts=tuple(facts),
        list_ids=wanted.list_ids,
        events=tuple(sorted(named(one, key) for one in interactions for key in one.told)),
        waiting=tuple(sorted(named(one, key) for one in interactions for key in one.waiting)),
    )  # fmt: skip


def _because(source: str, customer: Customer, counted: Iterable[Interaction]) -> Iterable[str]:
    if source in _OF_EACH:
        return filter(None, map(_OF_EACH[source], counted))
    said = customer.fields.get(source)
    return [f"said at {rfc3339(said.ms)} by {said.id}"] if said else ["the identifier seen last"]


def _identifier(key: str, one: Known) -> str:
    kind, _, value = key.partition(":")
    shared = ", shared: nobody's SMS" if one.customer == shared_id(key) else ""
    return f"{kind} {value}, first seen {rfc3339(one.seen.first_ms)} in {one.seen.first_id}{shared}"


def _interaction(one: Interaction, *, counted: bool) -> str:
    how = "handled" if one.handled else "abandoned" if one.abandoned else "open"
    why = "" if counted else ", not counted: its channel is not enabled"
    return f"{one.sid} {one.channel or 'on no channel yet'}, began {rfc3339(one.start_ms)}, {how}{why}"


def _span(one: Interaction, ms: int | None, start: str, end: str) -> str:
    return "" if ms is None else f"{one.sid} {ms / 1000:.3f} s from {start} to {end}"


def named(one: Interaction, key: str) -> str:
    """A domain event of an interaction, by the key it waits under."""
    return key if key.startswith(("WT", "WR", "CH", "IM", "MB")) else f"{one.sid}/{key}"
