"""Brevo's custom events.  https://developers.brevo.com/docs/event-endpoints

Stricter than Brevo may be: whether it refuses values its schema does not list is not known, so what passes
here passes there.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.contact import Contact, stamp
from sandbox.http import Answer, Asked, BadRequestError, refused

BATCH_EVENTS_MAX = 200
BATCH_BYTES_MAX = 512 * 1024
PROPERTIES_BYTES_MAX = 50 * 1024
NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
IDENTIFIERS = {"contact_id", "email_id", "ext_id", "phone_id", "whatsapp_id", "landline_number_id"}
DEFAULT_WINDOW = timedelta(days=183)  # GET /events without dates looks back six months

Resolve = Callable[[Mapping[str, Any]], Contact | None]


@dataclass(frozen=True)
class Event:
    """An event that was accepted.  `contact_id` is None for an orphan: its identifiers meant nobody."""

    name: str
    date: datetime
    contact_id: int | None
    identifiers: Mapping[str, Any]
    properties: Mapping[str, Any]
    received_ms: int  # epoch milliseconds

    def shown(self) -> dict[str, Any]:
        """As GET /events shows it."""
        return {
            "contact_id": self.contact_id,
            "event_date": stamp(self.date),
            "event_name": self.name,
            "event_filter_id": f"evf_{self.name}",
            "object_type": "contact",
            "event_properties": dict(self.properties),
            "contact_properties": {},
        }


@dataclass
class Events:
    """The events of one account.  One whose identifiers mean nobody is kept apart, and creates no contact."""

    resolve: Resolve
    write_attributes: Callable[[Contact, Mapping[str, Any], datetime], None]
    kept: list[Event] = field(default_factory=list)
    orphans: list[Event] = field(default_factory=list)
    refused_names: set[str] = field(default_factory=set)  # by request, so that some of a batch are refused
    visible_after_s: float = 0.0  # batches are queued: GET /events tells of them later

    def create(self, asked: Asked, now: datetime) -> Answer:
        """POST /events: 204 or 400."""
        item = asked.json()
        if wrong := self._wrong(item, batch=False):
            missing = "identifiers" in wrong
            return refused(400, "missing_parameter" if missing else "invalid_parameter", wrong)
        self._accept(item, now)
        return Answer(204)

    def create_batch(self, asked: Asked, now: datetime) -> Answer:
        """POST /events/batch: 202 all, 207 some, 400 none; the errors name events by index."""
        items = asked.json().get("events")
        if not isinstance(items, list) or not items:
            return refused(400, "missing_parameter", "events is missing")
        if len(items) > BATCH_EVENTS_MAX or len(asked.body) > BATCH_BYTES_MAX:
            return refused(400, "out_of_range", "At most 200 events and 512 KB are allowed in a batch")
        errors = []
        for index, item in enumerate(items):
            if wrong := self._wrong(item, batch=True):
                errors.append({"eventIndex": [index], "message": wrong})
            else:
                self._accept(item, now)
        if not errors:
            message = "Batch accepted. Valid events have been added to the processing queue."
            return Answer(202, {"message": message, "count": len(items)})
        good = len(items) - len(errors)
        body = {
            "status": "partial_success" if good else "failed",
            "total_events": len(items),
            "successful_events": good,
            "failed_events": len(errors),
            "errors": errors,
        }
        return Answer(207 if good else 400, body)

    def page(self, asked: Asked, now: datetime) -> Answer:
        """GET /events: newest first; `count` is of all that match."""
        limit = asked.number("limit", 100, least=1, most=10_000)
        offset = asked.number("offset", 0, least=0, most=10**9)
        start, end = _window(asked, now)
        names, ids = set(asked.query.get("event_name", [])), set(asked.query.get("contact_id", []))
        visible_ms = epoch_ms(now) - self.visible_after_s * 1000
        found = [
            event
            for event in self.kept
            if event.received_ms <= visible_ms
            and start <= event.date < end
            and (not names or event.name in names)
            and (not ids or str(event.contact_id) in ids)
        ]
        found.sort(key=lambda event: event.date, reverse=True)
        page = found[offset : offset + limit]
        return Answer(200, {"events": [event.shown() for event in page], "count": len(found)})

    def _wrong(self, item: Any, *, batch: bool) -> str:
        if isinstance(item, dict) and item.get("event_name") in self.refused_names:
            return "event_name is not allowed"
        return _wrong(item, batch=batch)

    def _accept(self, item: dict[str, Any], now: datetime) -> None:
        contact = self.resolve(item["identifiers"])
        event = Event(
            name=item["event_name"],
            date=_date(item["event_date"]) or now if "event_date" in item else now,
            contact_id=contact.id if contact else None,
            identifiers=item["identifiers"],
            properties=item.get("event_properties", {}),
            received_ms=epoch_ms(now),
        )
        if contact is None:
            self.orphans.append(event)
            return
        self.kept.append(event)
        if properties := item.get("contact_properties"):
            self.write_attributes(contact, properties, now)


def epoch_ms(moment: datetime) -> int:
    """Whole epoch milliseconds."""
    return int(moment.timestamp() * 1000)


def _wrong(item: Any, *, batch: bool) -> str:
    """What is wrong with an event; an empty text when nothing is.  The wording was not seen anywhere."""
    if not isinstance(item, dict):
        return "event should be an object"
    name, identifiers = item.get("event_name"), item.get("identifiers")
    properties = item.get("event_properties", {})
    if not isinstance(identifiers, dict) or not identifiers.keys() & IDENTIFIERS:
        return "identifiers is required" if batch else "identifiers is missing"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return "event_name contains invalid characters" if batch else "event_name is invalid"
    if "event_date" in item and not _date(item["event_date"]):
        return "event_date is invalid"
    if not isinstance(properties, dict):
        return "event_properties should be an object"
    if len(json.dumps(properties, ensure_ascii=False).encode()) > PROPERTIES_BYTES_MAX:
        return "event_properties is larger than 50 KB"
    for key, value in properties.items():
        if not NAME.fullmatch(key):
            return f"event_properties key {key} is invalid"
        # The schema lists string, integer, object and array, for single events boolean too, and nowhere float.
        if value is None or isinstance(value, float) or (batch and isinstance(value, bool)):
            return f"event_properties value of {key} has an unsupported type"
    return ""


def _window(asked: Asked, now: datetime) -> tuple[datetime, datetime]:
    """From when until before when: both dates together, or the last six months.  A day without time is whole."""
    start, end = asked.one("startDate"), asked.one("endDate")
    if not start and not end:
        return now - DEFAULT_WINDOW, datetime.max.replace(tzinfo=UTC)
    first, last = _date(start), _date(end)
    if first is None or last is None:
        raise BadRequestError(
            refused(400, "invalid_parameter", "startDate and endDate go together, as dates")
        )
    return first, last + (timedelta(milliseconds=1) if "T" in end else timedelta(days=1))


def _date(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
