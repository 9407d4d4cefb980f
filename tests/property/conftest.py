"""Histories: what happens in a contact centre, by the dice, and how it is heard.  Fixtures only."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from ingest.sources import Request, read
from sandbox.flex import messaging, voice
from sandbox.task import Agent, Task
from sandbox.twilio import TaskRouterEvent, iso, stream_webhook, survey_webhook, taskrouter_webhook
from shared.event import RawEvent

ACCOUNT = "AC0123456789abcdef0123456789abcdef"
AGENTS = (Agent("ana@example.com", "Ana"), Agent("ben@example.com", "Ben"))


@dataclass
class History:
    """What happened, in order, and which of the cases it holds."""

    happened: list[TaskRouterEvent | RawEvent] = field(default_factory=list)
    plugin: list[RawEvent] = field(default_factory=list)
    cases: set[str] = field(default_factory=set)
    seen_with: dict[str, set[str]] = field(default_factory=dict)  # by phone, what else identified


def make_history(dice: random.Random) -> History:
    """Some contacts of a few people who share phones, change mails and come back."""
    made = History()
    for number in range(dice.randint(1, 4)):
        _contact(made, number, dice)
    if any(len(others) > 1 for others in made.seen_with.values()):
        made.cases.add("shared phone")
    return made


def _contact(made: History, number: int, dice: random.Random) -> None:
    clock = _clock(8 * 3600 + number * 1800 + dice.randrange(600))
    phone = dice.choice(["+12025550101", "+12025550102", "+12025550103", "anonymous"])
    mail = dice.choice(["", "a@example.com", "b@example.com", "c@example.com"])
    external = dice.choice(["", "", "X1", "X2"])
    known: dict[str, Any] = {"customer_tier": dice.choice(["gold", "silver"])}
    late = bool(mail) and dice.random() < 0.3
    customers = {"external_id": external} if external else {}
    customers |= {"email": mail} if mail and not late else {}
    known |= {"customers": customers} if customers else {}
    name = f"contact {number}"
    if dice.random() < 0.5:
        task = Task(name, "voice", "Support", voice(phone, name, **known))
    else:
        task = Task(name, "chat", "Support", messaging("web", name, "", "Somebody", **known))
        phone = ""
    made.cases |= {"anonymous"} if phone == "anonymous" else set()
    made.cases |= {"two mails of one"} if external and mail else set()
    made.cases |= {"nobody"} if not phone.startswith("+") and not mail and not external else set()
    made.cases |= {"phone then mail"} if phone.startswith("+") and late else set()
    abandoned = dice.random() < 0.25  # before a late mail is heard
    if phone.startswith("+") and (who := external if abandoned and late else mail or external):
        made.seen_with.setdefault(phone, set()).add(who)
    made.happened += task.created(clock)
    if abandoned:
        made.cases.add("abandoned")
        made.happened += task.canceled(_later(clock, 40))
        if phone and dice.random() < 0.6:  # Flex's callback: another task of the same conversation
            made.cases.add("callback")
            back = Task(f"{name} back", "voice", "Support", voice(phone, f"{name} back", **known))
            back.attributes["conversations"] = {"conversation_id": task.sid, "followed_by": "callback"}
            made.happened += back.created(_later(clock, 300))
            made.happened += back.accepted(_later(clock, 330), AGENTS[0])
            made.happened += back.completed(_later(clock, 400), AGENTS[0])
        return
    agent = AGENTS[0]
    if dice.random() < 0.3:
        made.cases.add("several reservations")
        made.happened.append(task._reservation("timeout", task.created_ms + 9_000, AGENTS[1]))
    made.happened += task.accepted(_later(clock, 20), agent)
    if late:
        made.cases.add("late mail")
        made.happened += task.updated(_later(clock, 30), {"customers": {**customers, "email": mail}})
    if phone and dice.random() < 0.3:
        made.cases.add("transfer")
        made.happened += task.transferred(_later(clock, 60), agent, AGENTS[1], "Second line")
        agent = AGENTS[1]
    if dice.random() < 0.3:
        made.cases.add("survey before")
        made.happened.append(_survey(task, task.created_ms + 100_000, dice.randint(1, 5)))
    made.happened += task.wrapup(_later(clock, 120), agent)
    made.happened += task.completed(_later(clock, 150), agent)
    if dice.random() < 0.3:
        made.cases.add("plugin")
        made.plugin.append(_plugin(task, agent, _later(clock, 150)))
    if dice.random() < 0.3:
        made.cases.add("client")
        made.plugin.append(_client(task, _later(clock, 151), mail if "email" in customers else ""))
    if dice.random() < 0.3:
        made.cases.add("survey after")
        made.happened.append(_survey(task, task.created_ms + 200_000, dice.randint(1, 5)))
    elif dice.random() < 0.3:
        made.cases.add("virtual task")
        asked = Task(f"{name} asked", "survey", "Surveys", dict(task.attributes))
        asked.attributes["conversations"] = {**task.attributes["conversations"], "virtual": "Yes"}
        asked.attributes["csat_score"] = dice.randint(1, 5)
        made.happened += [
            *asked.created(_later(clock, 200))[:1],
            *asked.completed(_later(clock, 201), None),
        ]


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{seconds % 997:03d}"


def _later(clock: str, seconds: int) -> str:
    total = int(clock[:2]) * 3600 + int(clock[3:5]) * 60 + int(clock[6:8]) + seconds
    return f"{_clock(total)[:8]}{clock[8:]}"


def _heard(path: str, body: bytes) -> RawEvent:
    holds = read(Request(path, body, 0, ACCOUNT, keep_bodies=False))
    assert not holds.unreadable
    return holds.events[0]


def _survey(task: Task, time_ms: int, score: int) -> RawEvent:
    webhook = survey_webhook("", time_ms, task_sid=task.sid, score=score)
    return _heard(webhook.route, webhook.body)


def _plugin(task: Task, agent: Agent, clock: str) -> RawEvent:
    body = {
        "event": "task.completed",
        "occurredAt": f"2026-11-20T{clock}Z",
        "task": {
            "sid": "WR00000000000000000000000000000001", "taskSid": task.sid, "attributes": task.attributes,
            "taskChannelUniqueName": task.channel, "queueName": task.queue,
        },
        "worker": {"sid": agent.sid},
    }  # fmt: skip
    return _heard("/webhooks/flex/task-complete", msgspec.json.encode(body))


def _client(task: Task, clock: str, mail: str) -> RawEvent:
    body = {
        "task_sid": task.sid, "customer_email": mail, "channel": "webchat", "duration": 7, "queue_name": "Told",
        "occurredAt": f"2026-11-20T{clock}Z",
    }  # fmt: skip
    return _heard("/webhooks/flex/task-complete", msgspec.json.encode(body))


def hear_as(one: TaskRouterEvent | RawEvent, how: str) -> RawEvent:
    """The same thing, from the source named."""
    if isinstance(one, RawEvent):
        return one
    if how == "stream":
        webhook = stream_webhook([one], "")
        return _heard(webhook.route, webhook.body)
    webhook = taskrouter_webhook(one, "")
    event = _heard(webhook.route, webhook.body)
    if how == "callback":
        return event
    data = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() if isinstance(value, dict) else str(value)
        for name, value in one.fields.items()
    }  # fmt: skip
    body = {
        "sid": event.id,
        "event_type": one.type,
        "event_date": iso(one.time_ms)[:19] + "Z",
        "event_data": data,
    }
    return msgspec.structs.replace(event, source="/rest/taskrouter/events", body=msgspec.json.encode(body))


@pytest.fixture(scope="session")
def history() -> Callable[[random.Random], History]:
    """`history(dice)`: some contacts of a few people who share phones, change mails and come back."""
    return make_history


@pytest.fixture(scope="session")
def heard_as() -> Callable[[TaskRouterEvent | RawEvent, str], RawEvent]:
    """`heard_as(one, how)`: the same thing, from the source named: callback, stream, rest."""
    return hear_as
