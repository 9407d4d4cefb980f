"""The local Twilio's Event Streams: sinks, subscriptions and what they deliver, as its REST API has them.

https://www.twilio.com/docs/events/event-streams
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from sandbox.http import Answer, Asked
from sandbox.twilio import sid
from sandbox.words import refused

SINKS_MAX = SUBSCRIPTIONS_MAX = 100  # an account
DATE = "2026-11-20T10:00:00Z"
EVENTS = "https://events.twilio.com/v1"

TYPES = {
    **{
        f"com.twilio.taskrouter.{name}": ("TaskRouter.WDSEvent", 4)
        for name in (
            "task.created", "task.updated", "task.canceled", "task.completed", "task.deleted", "task.system-deleted",
            "task.wrapup", "task.transfer-initiated", "task.transfer-completed", "task.transfer-failed",
            "task.transfer-canceled", "task.transfer-attempt-failed",
            "reservation.created", "reservation.accepted", "reservation.rejected", "reservation.timeout",
            "reservation.canceled", "reservation.rescinded", "reservation.completed", "reservation.failed",
            "reservation.wrapup",
            "worker.created", "worker.deleted", "worker.activity.update", "worker.attributes.update",
            "worker.capacity.update", "worker.channel.availability.update",
            "task-queue.created", "task-queue.deleted", "task-queue.entered", "task-queue.moved", "task-queue.timeout",
            "workflow.entered", "workflow.rejected", "workflow.skipped", "workflow.target-matched", "workflow.timeout",
        )
    },
    **{
        f"com.twilio.conversations.{name}": (f"Conversations.{name.partition('.')[0].title()}", 2)
        for name in (
            "conversation.added", "conversation.updated", "conversation.removed", "conversation-state.updated",
            "message.added", "message.updated", "message.removed", "participant.added", "participant.updated",
            "participant.removed", "user.added", "user.updated", "delivery.updated",
        )
    },
}  # fmt: skip
"""Type → its schema, and the schema's latest version."""

DISCONTINUED = {"com.twilio.conversations.delivery.updated"}

Page = Callable[..., Answer]
"""A page of a list: (asked, url, key, things, shown, most)."""

_SID = re.compile(r"D[FG][0-9a-f]{32}")


@dataclass
class EventStreams:
    """What one account has."""

    sinks: dict[str, dict[str, Any]] = field(default_factory=dict)
    subscriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    subscribed: dict[str, dict[str, int]] = field(default_factory=dict)  # DF… → type → schema version
    made: int = 0

    def answer(self, asked: Asked, rest: str, account_sid: str, page: Page) -> Answer:
        """Answer one call; `rest` is the path from the version on."""
        sids, url = _SID.findall(rest), f"https://events.twilio.com/{rest}"
        form = parse_qs(asked.body.decode(), keep_blank_values=True)
        match f"{asked.method} {_SID.sub('{sid}', rest)}":
            case "GET v1/Types":
                types = [_type(name) for name in TYPES if asked.one("SchemaId") in ("", TYPES[name][0])]
                return page(asked, url, "types", types, _without_sid, most=1000)
            case "GET v1/Sinks":
                sinks = [one for one in self.sinks.values() if asked.one("Status") in ("", one["status"])]
                return page(asked, url, "sinks", sinks, dict, most=100)
            case "POST v1/Sinks":
                return self._make_sink(form)
            case "GET v1/Sinks/{sid}" if sids[0] in self.sinks:
                return Answer(200, self.sinks[sids[0]])
            case "DELETE v1/Sinks/{sid}" if sids[0] in self.sinks:
                if any(one["sink_sid"] == sids[0] for one in self.subscriptions.values()):
                    return refused(400, 20001, "The sink has a subscription")
                del self.sinks[sids[0]]
                return Answer(204)
            case "GET v1/Subscriptions":
                found = [
                    one
                    for one in self.subscriptions.values()
                    if asked.one("SinkSid") in ("", one["sink_sid"])
                ]
                return page(asked, url, "subscriptions", found, dict, most=100)
            case "POST v1/Subscriptions":
                return self._subscribe(form, account_sid)
            case "DELETE v1/Subscriptions/{sid}" if sids[0] in self.subscriptions:
                del self.subscriptions[sids[0]], self.subscribed[sids[0]]
                return Answer(204)
            case "GET v1/Subscriptions/{sid}/SubscribedEvents" if sids[0] in self.subscriptions:
                shown = [self._event(sids[0], name, account_sid) for name in self.subscribed[sids[0]]]
                return page(asked, url, "types", shown, _without_sid, most=100)
            case "POST v1/Subscriptions/{sid}/SubscribedEvents" if sids[0] in self.subscriptions:
                return self._add(sids[0], form, account_sid)
            case _:
                return refused(404, 20404, f"The requested resource {unquote(asked.path)} was not found")

    def _make_sink(self, form: dict[str, list[str]]) -> Answer:
        kind, told = form.get("SinkType", [""])[-1], _json(form.get("SinkConfiguration", [""])[-1])
        if not form.get("Description", [""])[-1] or kind not in ("webhook", "kinesis", "segment", "email"):
            return refused(400, 20001, "Invalid parameter")
        if kind == "webhook" and not str(told.get("destination", "")).startswith("https://"):
            return refused(400, 20001, "Invalid sink configuration")
        if len(self.sinks) >= SINKS_MAX:
            return refused(400, 20001, "The account has too many sinks")
        name = self._sid("DG")
        self.sinks[name] = {
            "sid": name, "description": form["Description"][-1], "sink_type": kind, "sink_configuration": told,
            "status": "active" if kind == "webhook" else "initialized", "date_created": DATE, "date_updated": DATE,
            "url": f"{EVENTS}/Sinks/{name}", "links": {"sink_test": f"{EVENTS}/Sinks/{name}/Test"},
        }  # fmt: skip
        return Answer(201, self.sinks[name])

    def _subscribe(self, form: dict[str, list[str]], account_sid: str) -> Answer:
        """`Types` stands once for each type, a JSON object each; an array of all in one field is refused."""
        sink = self.sinks.get(form.get("SinkSid", [""])[-1], {})
        wanted = [_json(text) for text in form.get("Types", [])]
        if not sink or sink["status"] != "active" or not form.get("Description", [""])[-1] or not wanted:
            return refused(400, 20001, "Invalid parameter")
        if any(one.get("type") not in TYPES or one["type"] in DISCONTINUED for one in wanted):
            return refused(400, 20001, "Invalid parameter Types")
        if any(one["sink_sid"] == sink["sid"] for one in self.subscriptions.values()):
            return refused(400, 20001, "The sink has a subscription already")
        if len(self.subscriptions) >= SUBSCRIPTIONS_MAX:
            return refused(400, 20001, "The account has too many subscriptions")
        name = self._sid("DF")
        self.subscribed[name] = {
            one["type"]: int(one.get("schema_version", TYPES[one["type"]][1])) for one in wanted
        }
        self.subscriptions[name] = {
            "sid": name, "account_sid": account_sid, "description": form["Description"][-1], "sink_sid": sink["sid"],
            "date_created": DATE, "date_updated": DATE, "url": f"{EVENTS}/Subscriptions/{name}",
            "links": {"subscribed_events": f"{EVENTS}/Subscriptions/{name}/SubscribedEvents"},
        }  # fmt: skip
        return Answer(201, self.subscriptions[name])

    def _add(self, subscription: str, form: dict[str, list[str]], account_sid: str) -> Answer:
        name, known = form.get("Type", [""])[-1], self.subscribed[subscription]
        if name not in TYPES or name in DISCONTINUED:
            return refused(400, 20001, "Invalid parameter Type")
        status = 200 if name in known else 201
        known.setdefault(name, int(form.get("SchemaVersion", [str(TYPES[name][1])])[-1]))
        return Answer(status, _without_sid(self._event(subscription, name, account_sid)))

    def _event(self, subscription: str, name: str, account_sid: str) -> dict[str, Any]:
        return {
            "sid": name, "account_sid": account_sid, "type": name, "subscription_sid": subscription,
            "schema_version": self.subscribed[subscription][name],
            "url": f"{EVENTS}/Subscriptions/{subscription}/SubscribedEvents/{name}",
        }  # fmt: skip

    def _sid(self, prefix: str) -> str:
        self.made += 1
        return sid(prefix, str(self.made))


def _type(name: str) -> dict[str, Any]:
    schema, _ = TYPES[name]
    return {
        "sid": name, "type": name, "schema_id": schema, "description": name, "documentation_url": None,
        "status": "discontinued" if name in DISCONTINUED else "available", "date_created": DATE, "date_updated": DATE,
        "url": f"{EVENTS}/Types/{name}", "links": {"schema": f"{EVENTS}/Schemas/{schema}/Versions"},
    }  # fmt: skip


def _without_sid(thing: dict[str, Any]) -> dict[str, Any]:
    """What has a name of its own here, to be paged by, and none at Twilio."""
    return {name: value for name, value in thing.items() if name != "sid"}


def _json(text: str) -> dict[str, Any]:
    """An object; {} for anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
