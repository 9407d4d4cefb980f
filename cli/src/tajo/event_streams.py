"""Event Streams: our sink and our subscription at Twilio.  Doing it again completes what is missing, and no more.

The order: a sink, then what it is sent.  A crash in between leaves a sink without a subscription, which the next
run finds by its destination and goes on with.  https://www.twilio.com/docs/events/event-streams
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from poller import endpoints
from poller.endpoints import Endpoint
from poller.twilio import Twilio
from shared.config import EVENT_TYPES, Config

DESCRIPTION = "Tajo"
ROUTE = "/webhooks/event-streams"
VERSIONS = {"taskrouter": 4, "conversations": 2}
"""The schema versions we read.  Pinned: without one Twilio takes the latest of the day."""

AGENTS = ("worker.activity.update",)  # of agents, for reports; it concerns no customer
_OF_CONVERSATIONS = ("conversation.", "conversation-state.", "message.", "participant.")
_NOT_IN_STREAMS = ("conversation.ended", "survey.", "interaction")
_ALIVE = ("active", "initialized", "validating")


class Registered(Struct, frozen=True):
    """What stands at Twilio now."""

    sink_sid: str
    subscription_sid: str
    made: tuple[str, ...]  # of "sink", "subscription"
    added: tuple[str, ...]  # types
    unknown: tuple[str, ...]  # types this account cannot subscribe to


def wanted(config: Config) -> tuple[str, ...]:
    """The types we read, by their names in the stream.  What people write only where the connector file asks for it."""
    flex = config.flex
    bodies = flex.message_bodies or any(type_.startswith("message.") for type_ in config.rules)
    return tuple(
        f"com.twilio.{'conversations' if type_.startswith(_OF_CONVERSATIONS) else 'taskrouter'}.{type_}"
        for type_ in (*EVENT_TYPES, *AGENTS)
        if not type_.startswith(_NOT_IN_STREAMS) and (bodies or not type_.startswith("message."))
    )


def sink_to(destination: str, sinks: Sequence[Mapping[str, Any]]) -> str:
    """The sid of the sink that delivers there; empty where none does.  Pure."""
    return next(
        (
            str(one["sid"])
            for one in sinks
            if one.get("sink_type") == "webhook" and one.get("status") in _ALIVE and _to(one) == destination
        ),
        "",
    )


def _to(sink: Mapping[str, Any]) -> str:
    """A webhook sink's destination; nobody documents whether the configuration comes back as an object or as text."""
    told = sink.get("sink_configuration")
    if isinstance(told, str):
        try:
            told = msgspec.json.decode(told)
        except msgspec.MsgspecError:
            return ""
    return str(told.get("destination", "")) if isinstance(told, dict) else ""


def missing(subscribed: Collection[str], types: Sequence[str]) -> tuple[str, ...]:
    """What is to be added.  Pure."""
    return tuple(type_ for type_ in types if type_ not in subscribed)


def version(type_: str) -> int:
    """The schema version in which we read a type.  Pure."""
    return VERSIONS[type_.split(".")[2]]


async def register(twilio: Twilio, destination: str, types: Sequence[str]) -> Registered:
    """Make, or complete, what delivers these types there.  Raises TwilioError."""
    made: list[str] = []
    catalogue = {one["type"]: one.get("status") for one in await _listed(twilio, endpoints.EVENT_TYPES)}
    can = tuple(type_ for type_ in types if catalogue.get(type_) in ("available", "deprecated"))
    unknown = missing(can, types)
    sink = sink_to(destination, await _listed(twilio, endpoints.SINKS))
    if not sink:
        told = {"destination": destination, "method": "POST", "batch_events": True}
        form = [
            ("Description", DESCRIPTION),
            ("SinkType", "webhook"),
            ("SinkConfiguration", msgspec.json.encode(told).decode()),
        ]
        sink = str((await twilio.create(endpoints.SINK_CREATE, form))["sid"])
        made.append("sink")
    subscriptions = await _listed(twilio, endpoints.SUBSCRIPTIONS, SinkSid=sink)
    if subscriptions:
        subscription = str(subscriptions[0]["sid"])
        there = await _listed(twilio, endpoints.SUBSCRIBED_EVENTS, SubscriptionSid=subscription)
        added = missing({one["type"] for one in there}, can)
        for type_ in added:
            form = [("Type", type_), ("SchemaVersion", str(version(type_)))]
            await twilio.create(endpoints.SUBSCRIBED_EVENT_CREATE, form, SubscriptionSid=subscription)
    else:
        added = can
        form = [("Description", DESCRIPTION), ("SinkSid", sink)]
        form += [("Types", f'{{"type":"{type_}","schema_version":{version(type_)}}}') for type_ in can]
        subscription = str((await twilio.create(endpoints.SUBSCRIPTION_CREATE, form))["sid"])
        made.append("subscription")
    return Registered(sink, subscription, tuple(made), added, unknown)


async def unregister(twilio: Twilio, destination: str) -> tuple[str, ...]:
    """Delete what delivers there, the subscription before its sink; the sids.  Raises TwilioError."""
    gone: list[str] = []
    while sink := sink_to(destination, await _listed(twilio, endpoints.SINKS)):
        for one in await _listed(twilio, endpoints.SUBSCRIPTIONS, SinkSid=sink):
            await twilio.delete(endpoints.SUBSCRIPTION_DELETE, Sid=one["sid"])
            gone.append(one["sid"])
        await twilio.delete(endpoints.SINK_DELETE, Sid=sink)
        if sink in gone:
            break
        gone.append(sink)
    return tuple(gone)


async def _listed(twilio: Twilio, endpoint: Endpoint, **named: str) -> list[dict[str, Any]]:
    """A whole list, of at most some hundred things."""
    return [
        msgspec.json.decode(item)
        async for page in twilio.pages(endpoint, backfill=False, **named)
        for item in page.items
    ]
