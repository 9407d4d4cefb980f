"""A local Twilio: the REST API as far as the connector reads it, with its limits as it would count them.

In a test:

    twilio = TwilioSandbox(events=[...])
    async with serving(brevo, twilio) as url:  # from sandbox.app
        ...  # TAJO_TWILIO_TASKROUTER_URL is f"{url}/twilio/taskrouter"; so with conversations, flex and events
    assert twilio.peak("taskrouter_events") <= 20

What happens goes in as TaskRouterEvents and Conversations; lists of tasks and agents follow from that.
Shapes: https://www.twilio.com/docs/taskrouter/api, https://www.twilio.com/docs/conversations/api
"""

import base64
import hashlib
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlencode

from sandbox import items
from sandbox.faults import Fault, take
from sandbox.http import Answer, Asked
from sandbox.items import CHAT_SERVICE_SID, Conversation
from sandbox.measure import cumulative, real_time
from sandbox.streams import EventStreams
from sandbox.twilio import ACCOUNT_SID, WORKSPACE_NAME, WORKSPACE_SID, TaskRouterEvent, iso, rest_event, sid
from sandbox.webchat import begin
from sandbox.words import WORDS, refused

BASE = "/twilio"
DAY_S = 24 * 3600
EVENTS_DAYS = 30  # https://www.twilio.com/docs/taskrouter/api/event
TASK_GONE_S = 300  # https://www.twilio.com/docs/taskrouter/lifecycle-task-state
FLEX_INSTANCE_SID = sid("GO", "sandbox")

LIMITS = {
    "flex": 100,
    "conversations": 100,
    "taskrouter": 30,
    "taskrouter_events": 20,
    "events": 20,
    "web_chats": 5,
    "web_channels": 1,
}
"""Calls in any one second, however it is laid."""


@dataclass
class TwilioSandbox:
    """One account.  `answer` is all of its judgement; `app.Sandbox` puts it on the network."""

    account_sid: str = ACCOUNT_SID
    token: str = "sandbox-auth-token"
    events: list[TaskRouterEvent] = field(default_factory=list)
    conversations: list[Conversation] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    shuffled: bool = False  # pages in no order of time
    null_attributes: bool = False  # in lists of tasks and agents, as the OpenAPI's text says
    clock: Callable[[], float] = time.time
    arrivals: dict[str, deque[float]] = field(default_factory=dict)  # limit → when calls came, monotonic
    answered: Counter[str] = field(default_factory=Counter)  # "GET /path 200" → how often
    callback_url: str | None = None
    events_filter: str | None = None
    api_keys: dict[str, str] = field(default_factory=dict)  # SK… → its secret
    streams: EventStreams = field(default_factory=EventStreams)

    base = BASE

    def take_fault(self, method: str, path: str) -> Fault | None:
        """What shall go wrong with this call, if anything.  One that is not answered in earnest counts too."""
        fault = take(self.faults, method, path)
        if fault and not fault.applies:
            product = path.removeprefix(f"{BASE}/").partition("/")[0]
            self._counted(product, method, path)
        return fault

    def fault_answer(self, fault: Fault) -> Answer:
        """In Twilio's words."""
        return fault.answer(WORDS)

    def record(self, method: str, path: str, status: int) -> Mapping[str, str]:
        """Remember a call; the headers that every answer has."""
        self.answered[f"{method} {_SID.sub('…', path)} {status}"] += 1
        return {
            "date": formatdate(self.clock(), usegmt=True),
            "twilio-request-id": sid("RQ", str(self.answered.total())),
        }

    def peak(self, limit: str) -> int:
        """The most calls under a limit in any one second."""
        came, most, first = sorted(self.arrivals.get(limit, ())), 0, 0
        for last, moment in enumerate(came):
            while came[first] <= moment - 1.0:
                first += 1
            most = max(most, last - first + 1)
        return most

    def answer(self, asked: Asked, headers: Mapping[str, str]) -> Answer:
        """Answer one call under /twilio: the limits, who it is, then what was asked.  `headers` are lower case."""
        product, _, rest = asked.path.removeprefix("/").partition("/")
        if not self._counted(product, asked.method, asked.path):
            return refused(429, 20429, "Too Many Requests")
        if headers.get("authorization") not in self._authorizations():
            return refused(401, 20003, "Authenticate")
        if "Page" in asked.query and "PageToken" not in asked.query:
            return refused(400, 40153, "Page parameter is not supported")
        if product == "events":
            return self.streams.answer(asked, rest, self.account_sid, self._page)
        origin = f"http://{headers.get('host', '127.0.0.1')}{BASE}/{product}"
        return self._routed(f"{asked.method} /{rest}", asked, f"{origin}/{rest}")

    def _authorizations(self) -> set[str]:
        pairs = {self.account_sid: self.token, **self.api_keys}.items()
        return {"Basic " + base64.b64encode(f"{user}:{word}".encode()).decode() for user, word in pairs}

    def _counted(self, product: str, method: str, path: str) -> bool:
        """Whether it is within every limit it counts under."""
        now = time.monotonic()
        names = [product] if product in LIMITS else []
        if product == "taskrouter" and path.endswith("/Events"):
            names.append("taskrouter_events")
        elif path.endswith(("/WebChannels", "/WebChats")):
            names.append("web_chats" if method == "POST" else "web_channels")
        within = True
        for name in names:
            came = self.arrivals.setdefault(name, deque())
            came.append(now)
            recent = sum(1 for moment in list(came)[-LIMITS[name] - 1 :] if moment > now - 1.0)
            within = within and recent <= LIMITS[name]
        return within

    def _routed(self, what: str, asked: Asked, url: str) -> Answer:
        sids = _SID.findall(what)
        match _SID.sub("{sid}", what):
            case "GET /v1/Configuration":
                return self._configuration(url)
            case "GET /v1/Channels" | "GET /v1/WebChannels":
                return self._page(asked, url, "flex_chat_channels", [], dict, most=50)
            case "POST /v2/WebChats" | "POST /v1/WebChannels":
                return self._web_chat(asked, url)
            case "GET /v1/Workspaces/{sid}" | "POST /v1/Workspaces/{sid}" if sids[0] == WORKSPACE_SID:
                return self._workspace(asked, url)
            case "GET /v1/Workspaces/{sid}/Events" if sids[0] == WORKSPACE_SID:
                return self._events(asked, url)
            case "GET /v1/Workspaces/{sid}/Tasks" if sids[0] == WORKSPACE_SID:
                return self._tasks(asked, url)
            case "GET /v1/Workspaces/{sid}/Tasks/{sid}" if sids[0] == WORKSPACE_SID:
                return self._one_task(sids[1])
            case "GET /v1/Workspaces/{sid}/Workers" if sids[0] == WORKSPACE_SID:
                workers = [items.worker(event) for event in self._latest("worker_sid")]
                return self._page(asked, url, "workers", workers, self._listed, most=1000)
            case "GET /v1/Workspaces/{sid}/Workers/{sid}" if sids[0] == WORKSPACE_SID:
                found = [
                    items.worker(one)
                    for one in self._latest("worker_sid")
                    if one.fields["worker_sid"] == sids[1]
                ]
                return (
                    Answer(200, found[0])
                    if found
                    else refused(404, 20404, "The requested resource was not found")
                )
            case "GET /v1/Workspaces/{sid}/TaskQueues" if sids[0] == WORKSPACE_SID:
                queues = [items.queue(event) for event in self._latest("task_queue_sid")]
                return self._page(asked, url, "task_queues", queues, dict, most=1000)
            case "GET /v1/Services/{sid}/Conversations" if sids[0] == CHAT_SERVICE_SID:
                return self._conversations(asked, url)
            case "GET /v1/Services/{sid}/Conversations/{sid}/Participants" if sids[0] == CHAT_SERVICE_SID:
                return self._of_conversation(asked, url, sids[1], "participants", items.participant)
            case "GET /v1/Services/{sid}/Conversations/{sid}/Messages" if sids[0] == CHAT_SERVICE_SID:
                return self._of_conversation(asked, url, sids[1], "messages", items.message)
            case "GET /v1/Workspaces/{sid}/TaskQueues/{sid}/CumulativeStatistics":
                return self._statistics(asked, sids[0], sids[1], cumulative)
            case "GET /v1/Workspaces/{sid}/TaskQueues/{sid}/RealTimeStatistics":
                return self._statistics(asked, sids[0], sids[1], real_time)
            case "GET /v1/Workspaces/{sid}/CumulativeStatistics":
                return self._statistics(asked, sids[0], "", cumulative)
            case "GET /v1/Workspaces/{sid}/RealTimeStatistics":
                return self._statistics(asked, sids[0], "", real_time)
            case _:
                return refused(404, 20404, f"The requested resource {asked.path} was not found")

    # -- what there is -----------------------------------------------------------------------------------------

    def _configuration(self, url: str) -> Answer:
        return Answer(200, {
            "account_sid": self.account_sid, "status": "ok", "taskrouter_workspace_sid": WORKSPACE_SID,
            "chat_service_instance_sid": CHAT_SERVICE_SID, "flex_service_instance_sid": CHAT_SERVICE_SID,
            "flex_instance_sid": FLEX_INSTANCE_SID, "ui_version": "~2.17.0", "url": url,
        })  # fmt: skip

    def _workspace(self, asked: Asked, url: str) -> Answer:
        if asked.method == "POST":
            form = parse_qs(asked.body.decode(), keep_blank_values=True)
            self.callback_url = form.get("EventCallbackUrl", [self.callback_url or ""])[-1] or None
            self.events_filter = form.get("EventsFilter", [self.events_filter or ""])[-1] or None
        return Answer(200, {
            "sid": WORKSPACE_SID, "account_sid": self.account_sid, "friendly_name": WORKSPACE_NAME,
            "event_callback_url": self.callback_url, "events_filter": self.events_filter, "url": url,
        })  # fmt: skip

    def _web_chat(self, asked: Asked, url: str) -> Answer:
        begun = begin(asked, self.account_sid, len(self.conversations), self.clock(), url)
        if begun.name:
            ms, guest = round(self.clock() * 1000), ({"identity": begun.identity},)
            self.conversations.append(Conversation(begun.name, ms, ms, "active", guest))
        return begun.answer

    def _events(self, asked: Asked, url: str) -> Answer:
        now = self.clock()
        start, end = _moment(asked.one("StartDate")), _moment(asked.one("EndDate"))
        if start is None:
            start = now - 60 * int(asked.one("Minutes", "15"))
        oldest = now - EVENTS_DAYS * DAY_S
        wanted = [
            event for event in self.events
            if max(start, oldest) * 1000 <= event.time_ms <= (now if end is None else end) * 1000
            and asked.one("EventType") in ("", event.type)
            and asked.one("TaskSid") in ("", event.fields.get("task_sid", ""))
        ]  # fmt: skip
        return self._page(asked, url, "events", wanted, rest_event, most=1000)

    def _tasks(self, asked: Asked, url: str) -> Answer:
        tasks = {shown["sid"]: shown for shown in map(self._task, self._latest("task_sid")) if shown}
        if asked.one("AssignmentStatus"):
            wanted = asked.one("AssignmentStatus").split(",")
            tasks = {name: task for name, task in tasks.items() if task["assignment_status"] in wanted}
        return self._page(asked, url, "tasks", list(tasks.values()), self._listed, most=1000)

    def _one_task(self, task: str) -> Answer:
        found = next((event for event in self._latest("task_sid") if event.fields["task_sid"] == task), None)
        shown = self._task(found) if found else None
        return Answer(200, shown) if shown else refused(404, 20404, "The requested resource was not found")

    def _conversations(self, asked: Asked, url: str) -> Answer:
        start, end = asked.one("StartDate")[:10], asked.one("EndDate")[:10]
        wanted = [
            one for one in self.conversations
            if start <= iso(one.created_ms)[:10] <= (end or "9999") and asked.one("State") in ("", one.state)
        ]  # fmt: skip
        return self._page(asked, url, "conversations", wanted, items.conversation, most=100)

    def _of_conversation(
        self,
        asked: Asked,
        url: str,
        name: str,
        key: str,
        shown: Callable[[Conversation, int], dict[str, Any]],
    ) -> Answer:
        found = next((one for one in self.conversations if one.sid == name), None)
        if found is None:
            return refused(404, 20404, "The requested resource was not found")
        things = [shown(found, number) for number in range(len(getattr(found, key)))]
        return self._page(asked, url, key, things, dict, most=100)

    def _statistics(
        self, asked: Asked, workspace: str, queue: str, measure: Callable[..., dict[str, Any]]
    ) -> Answer:
        if workspace != WORKSPACE_SID:
            return refused(404, 20404, "The requested resource was not found")
        now = self.clock()
        start = _moment(asked.one("StartDate")) or now - 60 * int(asked.one("Minutes", "15"))
        end = _moment(asked.one("EndDate")) or now
        of_queue = [one for one in self.events if not queue or one.fields.get("task_queue_sid") == queue]
        said = measure(of_queue, round(start * 1000), round(end * 1000))
        named = {"task_queue_sid": queue} if queue else {}
        return Answer(200, {"account_sid": ACCOUNT_SID, "workspace_sid": WORKSPACE_SID, **named, **said})

    # -- lists -------------------------------------------------------------------------------------------------

    def _latest(self, name: str) -> Iterable[TaskRouterEvent]:
        """The latest event about each thing that this field names."""
        latest: dict[str, TaskRouterEvent] = {}
        for event in sorted(self.events, key=lambda event: event.time_ms):
            if event.fields.get(name) and event.time_ms <= self.clock() * 1000:
                latest[event.fields[name]] = event
        return latest.values()

    def _task(self, event: TaskRouterEvent) -> dict[str, Any] | None:
        shown, fields = rest_event(event)["event_data"], event.fields
        ended = fields["task_assignment_status"] in ("completed", "canceled")
        if ended and self.clock() * 1000 > event.time_ms + TASK_GONE_S * 1000:
            return None
        return {
            "sid": fields["task_sid"], "account_sid": ACCOUNT_SID, "workspace_sid": WORKSPACE_SID,
            "assignment_status": fields["task_assignment_status"], "attributes": shown["task_attributes"],
            "age": fields["task_age"], "priority": 0, "date_updated": iso(event.time_ms),
            "task_channel_unique_name": fields["task_channel_unique_name"],
            "task_queue_friendly_name": fields.get("task_queue_name"), "workflow_sid": fields["workflow_sid"],
        }  # fmt: skip

    def _listed(self, shown: dict[str, Any]) -> dict[str, Any]:
        return {**shown, "attributes": None} if self.null_attributes else shown

    def _page(
        self, asked: Asked, url: str, key: str, things: Sequence[Any], shown: Callable[[Any], dict[str, Any]], *, most: int
    ) -> Answer:  # fmt: skip
        size = min(int(asked.one("PageSize", "50")), most)
        order = sorted((_place(thing, shuffled=self.shuffled), n) for n, thing in enumerate(things))
        token = asked.one("PageToken").removeprefix("PA")
        found = (place + 1 for place, (_, n) in enumerate(order) if _name(things[n]) == token)
        after = next(found, len(order)) if token else 0
        part = [things[n] for _, n in order[after : after + size]]
        more = after + size < len(order)
        query = {name: values for name, values in asked.query.items() if name not in ("Page", "PageToken")}
        following = {**query, "Page": ["1"], "PageToken": [f"PA{_name(part[-1])}"]} if more else None
        meta = {
            "page": 0, "page_size": size, "first_page_url": url, "previous_page_url": None, "url": url,
            "next_page_url": f"{url}?{urlencode(following, doseq=True)}" if following else None, "key": key,
        }  # fmt: skip
        return Answer(200, {key: [shown(thing) for thing in part], "meta": meta})


_SID = re.compile(r"[A-Z]{2}[0-9a-f]{32}")


def _name(thing: Any) -> str:
    return str(thing["sid"] if isinstance(thing, dict) else thing.sid)


def _place(thing: Any, *, shuffled: bool) -> tuple[Any, str]:
    """Where in a list something stands; the newest first, unless shuffled."""
    name = _name(thing)
    if shuffled:
        return hashlib.sha256(name.encode()).hexdigest(), name
    return -int(getattr(thing, "time_ms", getattr(thing, "created_ms", 0))), name


def _moment(text: str) -> float | None:
    """ISO 8601 as epoch seconds."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
