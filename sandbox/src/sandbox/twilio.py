"""What Twilio would send: the shapes of its webhooks, and its signature.  Pure.

Field names: https://www.twilio.com/docs/taskrouter/api/event/reference, https://www.twilio.com/docs/events,
https://www.twilio.com/docs/conversations/conversations-webhooks.  Sids are derived from readable names, so that
the same day is the same day every time.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
REMEMBERED = 8192  # names, and what was made of them: the events of a day repeat the same words


@lru_cache(maxsize=REMEMBERED)
def sid(prefix: str, name: str) -> str:
    """A sid such as WT… for a readable name: the same for the same."""
    return prefix + hashlib.sha256(f"{prefix} {name}".encode()).hexdigest()[:32]


ACCOUNT_SID = sid("AC", "sandbox")
WORKSPACE_SID = sid("WS", "sandbox")
WORKSPACE_NAME = "Flex Task Assignment"


@dataclass(frozen=True)
class Webhook:
    """One request as Twilio sends it, but for the signature, which depends on the URL."""

    route: str  # under the public URL: /webhooks/taskrouter
    body: bytes
    content_type: str
    whom: str  # whose it is; the webhooks of one are sent in order
    moments: tuple[int, ...]  # when what it tells of happened: epoch milliseconds


@dataclass(frozen=True)
class TaskRouterEvent:
    """Something that happened in TaskRouter, in the names Event Streams has.  Moments are datetimes."""

    type: str
    time_ms: int
    resource_type: str  # task, reservation, worker
    resource_sid: str
    description: str
    fields: Mapping[str, Any]

    @property
    def sid(self) -> str:
        """The event's own sid: the same in callback and stream."""
        return sid("EV", f"{self.type} {self.resource_sid} {self.time_ms}")


# -- the three shapes of a TaskRouter event -----------------------------------------------------------------

_CALLBACK_ONLY = {
    "task_ignore_capacity", "task_virtual_start_time", "worker_version", "worker_channel_capacity",
    "worker_channel_consumed_capacity",
}  # fmt: skip


def callback(event: TaskRouterEvent) -> dict[str, str]:
    """The form of the workspace's EventCallbackUrl: PascalCase, all text, dates in epoch seconds."""
    return {
        "EventType": event.type,
        "AccountSid": ACCOUNT_SID,
        "WorkspaceSid": WORKSPACE_SID,
        "WorkspaceName": WORKSPACE_NAME,
        "EventDescription": event.description,
        "ResourceType": event.resource_type,
        "ResourceSid": event.resource_sid,
        "Timestamp": str(event.time_ms // 1000),
        "TimestampMs": str(event.time_ms),
        "Sid": event.sid,
        "OperatingUnitSid": sid("OU", "sandbox"),
        **{_pascal(name): _form_value(value) for name, value in event.fields.items()},
    }


def cloud_event(event: TaskRouterEvent) -> dict[str, Any]:
    """An element of an Event Streams array: CloudEvents 1.0, the fields in data.payload, dates in ISO 8601."""
    envelope = {
        "account_sid": ACCOUNT_SID,
        "timestamp": iso(event.time_ms),
    }
    payload = {
        "sid": event.sid,
        "eventtype": event.type,
        **envelope,
        "workspace_sid": WORKSPACE_SID,
        "workspace_name": WORKSPACE_NAME,
        "event_description": event.description,
        "resource_type": event.resource_type,
        "resource_sid": event.resource_sid,
        **{name: _json_value(value) for name, value in event.fields.items() if name not in _CALLBACK_ONLY},
    }
    return {
        "specversion": "1.0",
        "type": f"com.twilio.taskrouter.{event.type}",
        "source": WORKSPACE_SID,
        "id": event.sid,
        "dataschema": "https://events-schemas.twilio.com/TaskRouter.WDSEvent/4",
        "datacontenttype": "application/json",
        "time": iso(event.time_ms + 20),
        "data": {
            "sid": event.sid,
            "name": event.type,
            **envelope,
            "account_friendly_name": "Acme",
            "parent_account_sid": ACCOUNT_SID,
            "parent_friendly_name": "Acme",
            "level": "INFO",
            "group": event.resource_type,
            "product_name": "TaskRouter",
            "publisher": "TaskRouter",
            "publisher_metadata": "{}",
            "payload_type": "application/json",
            "payload": payload,
        },
    }


def rest_event(event: TaskRouterEvent) -> dict[str, Any]:
    """An item of GET /v1/Workspaces/{WS}/Events: the fields in event_data, all text, dates in epoch seconds."""
    here = f"https://taskrouter.twilio.com/v1/Workspaces/{WORKSPACE_SID}"
    return {
        "account_sid": ACCOUNT_SID,
        "actor_sid": WORKSPACE_SID,
        "actor_type": "workspace",
        "actor_url": here,
        "description": event.description,
        "event_data": {
            **{name: _form_value(value) for name, value in event.fields.items()},
            "operating_unit_sid": sid("OU", "sandbox"),
            "workspace_sid": WORKSPACE_SID,
            "workspace_name": WORKSPACE_NAME,
        },
        "event_date": f"{iso(event.time_ms)[:19]}Z",
        "event_date_ms": event.time_ms,
        "event_type": event.type,
        "resource_sid": event.resource_sid,
        "resource_type": event.resource_type,
        "resource_url": f"{here}/{event.resource_type.capitalize()}s/{event.resource_sid}",
        "sid": event.sid,
        "source": "twilio",
        "source_ip_address": None,
        "workspace_sid": WORKSPACE_SID,
        "url": f"{here}/Events/{event.sid}",
    }


def iso(ms: int) -> str:
    """Epoch milliseconds as Twilio writes them: 2026-11-20T09:00:00.101Z."""
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


@lru_cache(maxsize=REMEMBERED)
def _pascal(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _form_value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            return str(int(value.timestamp()))
        case dict():
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        case _:
            return str(value)


def _json_value(value: Any) -> Any:
    match value:
        case datetime():
            return iso(round(value.timestamp() * 1000))
        case dict():
            return _form_value(value)  # attributes are a JSON text inside the JSON
        case _:
            return value


# -- webhooks -----------------------------------------------------------------------------------------------


def taskrouter_webhook(event: TaskRouterEvent, whom: str) -> Webhook:
    """A callback of the workspace."""
    return _form("/webhooks/taskrouter", callback(event), whom, event.time_ms)


def stream_webhook(events: Sequence[TaskRouterEvent], whom: str) -> Webhook:
    """One delivery of Event Streams: an array."""
    body = json.dumps([cloud_event(event) for event in events]).encode()
    return Webhook("/webhooks/event-streams", body, JSON, whom, tuple(event.time_ms for event in events))


def conversation_webhook(whom: str, event_type: str, time_ms: int, **fields: str) -> Webhook:
    """A post-event of Conversations; the time's name depends on the event.  Underscores stand for dots."""
    dated = {
        "onConversationStateUpdated": ("StateUpdated",),
        "onConversationAdded": ("DateCreated", "DateUpdated"),
    }.get(event_type, ("DateCreated",))
    form = {
        "EventType": event_type,
        "AccountSid": ACCOUNT_SID,
        "Source": "API",
        **{name.replace("_", "."): value for name, value in fields.items()},
        **dict.fromkeys(dated, iso(time_ms)),
    }
    return _form("/webhooks/conversations", form, whom, time_ms)


def interaction_webhook(whom: str, event_type: str, interaction: str, **fields: str) -> Webhook:
    """A Flex Interactions webhook.  It carries no time.  https://www.twilio.com/docs/flex (Interactions webhooks)"""
    form = {
        "EventType": event_type,
        "AccountSid": ACCOUNT_SID,
        "InstanceSid": sid("GO", "sandbox"),
        "InteractionSid": sid("KD", interaction),
        "ChannelSid": sid("UO", interaction),
        "MediaChannelSid": sid("CH", interaction),
        **fields,
    }
    return _form("/webhooks/interactions", form, whom)


def survey_webhook(whom: str, time_ms: int, *, as_form: bool = False, **fields: Any) -> Webhook:
    """What a Studio flow posts after a survey, as JSON or as a form."""
    survey = {**fields, "time": iso(time_ms)}
    if as_form:
        return _form("/webhooks/survey", {name: str(value) for name, value in survey.items()}, whom, time_ms)
    return Webhook("/webhooks/survey", json.dumps(survey).encode(), JSON, whom, (time_ms,))


def _form(route: str, form: Mapping[str, str], whom: str, *moments: int) -> Webhook:
    return Webhook(route, urlencode(form, quote_via=_quoted).encode(), FORM, whom, moments)


_quoted = lru_cache(maxsize=REMEMBERED)(quote_plus)  # halves what a form costs


# -- the signature ------------------------------------------------------------------------------------------


def sign(url: str, token: str, form: Sequence[tuple[str, str]] = ()) -> str:
    """X-Twilio-Signature: HMAC-SHA1 over the URL and the sorted parameters.

    Values of a repeated parameter are signed once each, sorted; blank ones count.
    https://www.twilio.com/docs/usage/webhooks/webhooks-security
    """
    text = url + "".join(name + value for name, value in sorted(set(form)))
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def signed(webhook: Webhook, public_url: str, token: str) -> tuple[str, dict[str, str]]:
    """The path with its query, and the headers.  A JSON body is signed through its hash in the query."""
    digest = hashlib.sha256(webhook.body)
    headers = {
        "content-type": webhook.content_type,
        "i-twilio-idempotency-token": digest.hexdigest()[:32],  # the same for every try of one request
        "user-agent": "TwilioProxy/1.1",
    }
    if webhook.content_type == JSON:
        path = f"{webhook.route}?bodySHA256={digest.hexdigest()}"
        return path, {**headers, "x-twilio-signature": sign(public_url + path, token)}
    form = parse_qsl(webhook.body.decode(), keep_blank_values=True)
    return webhook.route, {**headers, "x-twilio-signature": sign(public_url + webhook.route, token, form)}
