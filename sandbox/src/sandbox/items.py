"""Items of Twilio's lists, as its REST API shows them.  Pure.

Shapes: https://www.twilio.com/docs/taskrouter/api, https://www.twilio.com/docs/conversations/api
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sandbox.twilio import ACCOUNT_SID, WORKSPACE_SID, TaskRouterEvent, iso, rest_event, sid

CHAT_SERVICE_SID = sid("IS", "sandbox")


@dataclass(frozen=True)
class Conversation:
    """A conversation of Flex's service, and who takes part."""

    name: str
    created_ms: int
    updated_ms: int
    state: str = "closed"
    participants: Sequence[Mapping[str, Any]] = ()  # each {"identity": …} or {"messaging_binding": {…}}
    messages: Sequence[Mapping[str, Any]] = ()  # each {"author": …, "body": …}
    attributes: str = "{}"

    @cached_property
    def sid(self) -> str:
        """CH…"""
        return sid("CH", self.name)


def worker(event: TaskRouterEvent) -> dict[str, Any]:
    """An agent, as of the latest event that tells of them."""
    fields = rest_event(event)["event_data"]
    return {
        "sid": fields["worker_sid"], "account_sid": ACCOUNT_SID, "workspace_sid": WORKSPACE_SID,
        "friendly_name": fields["worker_name"], "attributes": fields["worker_attributes"],
        "activity_name": fields.get("worker_activity_name"), "available": True, "date_updated": iso(event.time_ms),
    }  # fmt: skip


def queue(event: TaskRouterEvent) -> dict[str, Any]:
    """A queue."""
    return {
        "sid": event.fields["task_queue_sid"], "account_sid": ACCOUNT_SID, "workspace_sid": WORKSPACE_SID,
        "friendly_name": event.fields["task_queue_name"], "task_order": "FIFO",
        "date_created": "2025-01-07T09:00:00Z", "date_updated": "2025-01-07T09:00:00Z",
    }  # fmt: skip


def conversation(one: Conversation) -> dict[str, Any]:
    """A conversation."""
    url = f"https://conversations.twilio.com/v1/Services/{CHAT_SERVICE_SID}/Conversations/{one.sid}"
    return {
        "sid": one.sid, "account_sid": ACCOUNT_SID, "chat_service_sid": CHAT_SERVICE_SID,
        "messaging_service_sid": sid("MG", "sandbox"), "friendly_name": one.name, "unique_name": None,
        "attributes": one.attributes, "date_created": f"{iso(one.created_ms)[:19]}Z",
        "date_updated": f"{iso(one.updated_ms)[:19]}Z", "state": one.state, "timers": {}, "bindings": {}, "url": url,
        "links": {"participants": f"{url}/Participants", "messages": f"{url}/Messages"},
    }  # fmt: skip


def participant(one: Conversation, number: int) -> dict[str, Any]:
    """Who takes part, by number."""
    created = f"{iso(one.created_ms)[:19]}Z"
    return {
        "account_sid": ACCOUNT_SID, "conversation_sid": one.sid, "sid": sid("MB", f"{one.name} {number}"),
        "identity": None, "attributes": "{}", "messaging_binding": None, "role_sid": sid("RL", "sandbox"),
        "date_created": created, "date_updated": created, **one.participants[number],
    }  # fmt: skip


def message(one: Conversation, number: int) -> dict[str, Any]:
    """What was said, by number."""
    created = f"{iso(one.created_ms + number * 1000)[:19]}Z"
    return {
        "account_sid": ACCOUNT_SID, "conversation_sid": one.sid, "sid": sid("IM", f"{one.name} {number}"),
        "index": number, "author": None, "body": None, "participant_sid": None, "attributes": "{}", "media": None,
        "delivery": None, "date_created": created, "date_updated": created, **one.messages[number],
    }  # fmt: skip
