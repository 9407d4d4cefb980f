"""A local Brevo: https://api.brevo.com/v3 as far as the connector uses it, with its limits, and faults on request.

In a test:

    brevo = BrevoSandbox(limits=UNLIMITED)
    async with serving(brevo) as url:  # from sandbox.app
        ...  # TAJO_BREVO_URL is f"{url}/v3", the key is brevo.api_key
        brevo.faults.append(Fault("status", status=429, path="/v3/events"))
    assert [event.name for event in brevo.events] == ["SUPPORT_REQUESTED"]

All of it lives in memory and ends with the process.
"""

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sandbox.account import ACCOUNT, Account
from sandbox.contact import Contact
from sandbox.contacts import Contacts
from sandbox.events import Event, Events
from sandbox.faults import BREVO_WORDS, Fault, take
from sandbox.http import Answer, Asked, BadRequestError, refused
from sandbox.imports import Imports
from sandbox.limits import Limits, Meter, bucket_of

BASE = "/v3"
ADMIN = "/_sandbox"
REQUESTS_MAX = 1_000_000  # of those remembered

Route = Callable[[Asked, datetime], Answer]


@dataclass(frozen=True)
class Request:
    """A call that was made: `route` is its path with identifiers left out."""

    method: str
    path: str
    route: str
    status: int  # as answered; what a fault kept from being answered is 0
    received_ms: int  # epoch milliseconds


@dataclass
class BrevoSandbox:
    """One Brevo account.  `answer` is all of its judgement; `app.Sandbox` puts it on the network."""

    api_key: str = "xkeysib-sandbox"
    limits: Limits = field(default_factory=Limits)
    faults: list[Fault] = field(default_factory=list)
    requests: deque[Request] = field(default_factory=lambda: deque(maxlen=REQUESTS_MAX))
    clock: Callable[[], float] = time.time

    base = BASE

    def __post_init__(self) -> None:
        self.account = Account()
        self.contacts = Contacts(
            self.account.attributes, self.account.lists, registered=str(ACCOUNT["email"])
        )
        self.imports = Imports(self.account.lists, self.contacts.take_row)
        self.event_log = Events(self.contacts.resolve, self.contacts.write_attributes)
        self._meter = Meter(self.limits)
        self._calls = 0

    @property
    def events(self) -> list[Event]:
        """The events accepted for a contact, in the order they came."""
        return self.event_log.kept

    @property
    def orphans(self) -> list[Event]:
        """The events accepted whose identifiers meant nobody at that time."""
        return self.event_log.orphans

    def contact(self, **identifier: Any) -> Contact | None:
        """The contact with an `ext_id`, `email_id`, `phone_id` or `contact_id`."""
        return self.contacts.resolve(identifier)

    def take_fault(self, method: str, path: str) -> Fault | None:
        """What shall go wrong with this call, if anything."""
        return take(self.faults, method, path)

    def answer(self, asked: Asked, headers: Mapping[str, str]) -> Answer:
        """Answer one call under /v3: the key, the limits, then what was asked.  `headers` are lower case."""
        now = self.clock()
        allowed, limit_headers = self._meter.count(bucket_of(asked.method, asked.path), now)
        given = headers.get("api-key")
        if given is None:
            answer = refused(401, "unauthorized", "authentication not found in headers")
        elif given != self.api_key:
            answer = refused(401, "unauthorized", "Key not found")
        elif not allowed:
            answer = Answer(429, {"message": "Too Many Requests"})
        else:
            answer = self._routed(asked, datetime.fromtimestamp(now, UTC), headers.get("host", ""))
        return Answer(answer.status, answer.body, {**limit_headers, **answer.headers})

    def fault_answer(self, fault: Fault) -> Answer:
        """In Brevo's words."""
        return fault.answer(BREVO_WORDS)

    def record(self, method: str, path: str, status: int) -> Mapping[str, str]:
        """Remember a call; the headers that every answer has."""
        route = next((name for pattern, name in _ROUTES if pattern.fullmatch(path.removeprefix(BASE))), path)
        self.requests.append(Request(method, path, route, status, round(self.clock() * 1000)))
        self._calls += 1
        return {"sib-request-id": f"sandbox-{self._calls:08d}"}

    def state(self) -> dict[str, Any]:
        """All there is, as JSON: what `tajo-sandbox play --verify` compares."""
        calls = Counter(f"{call.method} {call.route} {call.status}" for call in self.requests)
        return {
            "contacts": [contact.shown() for contact in self.contacts.by_id.values()],
            "events": [{**event.shown(), "received_ms": event.received_ms} for event in self.events],
            "orphans": [{**asdict(event), "date": event.date.isoformat()} for event in self.orphans],
            "requests": dict(sorted(calls.items())),
            "faults": [asdict(fault) for fault in self.faults],
        }

    def _routed(self, asked: Asked, now: datetime, host: str) -> Answer:
        for pattern, name in _ROUTES:
            if match := pattern.fullmatch(asked.path):
                try:
                    if name == "/processes/{id}" and asked.method == "GET":
                        return self.imports.read(match[1], f"http://{host}", now)
                    return self._call(f"{asked.method} {name}", match, asked, now)
                except BadRequestError as error:
                    return error.answer
        return refused(404, "document_not_found", "Resource not found")

    def _call(self, what: str, match: re.Match[str], asked: Asked, now: datetime) -> Answer:
        match what:
            case "GET /account":
                return Answer(200, ACCOUNT)
            case "GET /contacts/attributes":
                return self.account.list_attributes()
            case "POST /contacts/attributes/{category}/{name}":
                return self.account.create_attribute(match[1], match[2], asked)
            case "POST /contacts/folders":
                return self.account.create_folder(asked)
            case "POST /contacts/lists":
                return self.account.create_list(asked)
            case "GET /contacts/lists/{id}":
                return self.account.read_list(int(match[1]))
            case "GET /contacts":
                return self.contacts.page(asked)
            case "POST /contacts":
                return self.contacts.create(asked, now)
            case "POST /contacts/import":
                return self.imports.begin(asked, now)
            case "GET /contacts/{identifier}":
                return self.contacts.read(match[1], asked)
            case "PUT /contacts/{identifier}":
                return self.contacts.update(match[1], asked, now)
            case "DELETE /contacts/{identifier}":
                return self.contacts.delete(match[1], asked)
            case "GET /events":
                return self.event_log.page(asked, now)
            case "POST /events":
                return self.event_log.create(asked, now)
            case "POST /events/batch":
                return self.event_log.create_batch(asked, now)
            case _:
                message = f"{asked.method} Method is not allowed on this path"
                return refused(405, "method_not_allowed", message)


_ROUTES = [
    (re.compile(pattern), name)
    for pattern, name in (
        ("/account", "/account"),
        ("/contacts", "/contacts"),
        ("/contacts/attributes", "/contacts/attributes"),
        ("/contacts/attributes/([^/]+)/([^/]+)", "/contacts/attributes/{category}/{name}"),
        ("/contacts/folders", "/contacts/folders"),
        ("/contacts/lists", "/contacts/lists"),
        (r"/contacts/lists/(\d+)", "/contacts/lists/{id}"),
        ("/contacts/import", "/contacts/import"),
        ("/contacts/(.+)", "/contacts/{identifier}"),
        ("/processes/([^/]+)", "/processes/{id}"),
        ("/events", "/events"),
        ("/events/batch", "/events/batch"),
    )
]
