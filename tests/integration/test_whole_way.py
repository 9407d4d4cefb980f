"""The whole way, as one would run it: signed webhooks in any order, twice, from two sources; Brevo exact at the end."""

import asyncio
import json
import random
import shutil
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import nats
import pytest
from openapi_schema_validator import OAS31Validator
from ruamel.yaml import YAML

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.flex import messaging, voice
from sandbox.limits import Limits
from sandbox.task import Agent, Task
from sandbox.twilio import ACCOUNT_SID, TaskRouterEvent, Webhook, signed, stream_webhook, taskrouter_webhook

TOKEN, PUBLIC = "token-of-twilio", "https://hooks.example.com"
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
ANA, BEN = Agent("ana@example.com", "Ana Pérez"), Agent("ben@example.com", "Ben Okafor")
CHANNELS = ("voice", "sms", "whatsapp", "webchat")
SPEC = YAML(typ="safe").load(Path(__file__).parent.parent / "data/brevo/openapi-subset.yaml")


class Recording(BrevoSandbox):
    """The local Brevo, with every body kept."""

    def answer(self, asked, headers):
        self.__dict__.setdefault("bodies", []).append((asked.method, asked.path, asked.body))
        return super().answer(asked, headers)


@dataclass
class Person:
    """A customer, and what Brevo shall hold at the end, counted here by the definitions and not by our code."""

    number: int
    starts: list[tuple[str, str]] = field(default_factory=list)  # clock, channel
    waits: list[float] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)  # name, task sid

    @property
    def email(self) -> str:
        return f"person{self.number}@example.com"

    @property
    def phone(self) -> str:
        return f"+1202555{self.number:04d}"

    def expected(self) -> dict[str, object]:
        counts = Counter(channel for _, channel in self.starts)
        latest = {channel: max(clock for clock, one in self.starts if one == channel) for channel in counts}
        preferred = max(counts, key=lambda channel: (counts[channel], latest[channel]))
        wait = {"AVG_WAIT_TIME": int(sum(self.waits) / len(self.waits) + 0.5)} if self.waits else {}
        return {
            "SUPPORT_TICKET_COUNT": len(self.starts),
            "PREFERRED_CHANNEL": preferred,
            "LAST_SUPPORT_DATE": "2026-11-20",
            "FIRSTNAME": f"Person {self.number}",
            "VIP_TIER": f"tier{self.number % 3}",
            "SMS": self.phone.removeprefix("+"),
            **wait,
        }


def contact(person: Person, number: int, dice: random.Random) -> list[TaskRouterEvent]:
    """One contact of a person, handled or abandoned, as TaskRouter tells it."""
    channel = dice.choice(CHANNELS)
    minute, second = divmod(number * 3, 60)
    clock = f"{8 + minute // 60:02d}:{minute % 60:02d}:{second:02d}.{number % 1000:03d}"
    name = f"contact {number}"
    known = {
        "customers": {"email": person.email, "phone": person.phone, "name": f"Person {person.number}"},
        "customer_tier": f"tier{person.number % 3}",
    }
    if channel == "voice":
        task = Task(name, "voice", "Support Voice", voice(person.phone, name, **known))
    else:
        address = {"sms": person.phone, "whatsapp": f"whatsapp:{person.phone}", "webchat": ""}[channel]
        kind = "web" if channel == "webchat" else channel
        task = Task(
            name, "chat", "Support Chat", messaging(kind, name, address, f"Person {person.number}", **known)
        )

    def later(seconds: float) -> str:
        ms = round((int(clock[:2]) * 3600 + int(clock[3:5]) * 60 + float(clock[6:]) + seconds) * 1000)
        return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"

    person.starts.append((clock, channel))
    person.events.append(("SUPPORT_REQUESTED", task.sid))
    events = task.created(clock)
    if dice.random() < 0.2:
        person.events.append(("SUPPORT_ABANDONED", task.sid))
        return events + task.canceled(later(41))
    accepted = 5 + dice.randrange(60)
    person.waits.append(accepted - 0.086)  # from task-queue.entered, 86 ms after creation
    person.events += [("SUPPORT_RESOLVED", task.sid), ("CONVERSATION_ENDED", task.sid)]
    events += task.accepted(later(accepted), ANA)
    if channel == "voice" and dice.random() < 0.2:
        events += task.transferred(later(accepted + 60), ANA, BEN, "Support Voice")
        return events + task.wrapup(later(accepted + 200), BEN) + task.completed(later(accepted + 230), BEN)
    return events + task.wrapup(later(accepted + 100), ANA) + task.completed(later(accepted + 130), ANA)


def traffic(count: int, dice: random.Random) -> tuple[list[Person], list[TaskRouterEvent]]:
    """People, and `count` events of theirs."""
    people, events = [Person(number) for number in range(count // 20)], []
    number = 0
    while len(events) < count:
        events += contact(people[number % len(people)], number, dice)
        number += 1
    return people, events


def schedule(events: list[TaskRouterEvent], per_s: float, dice: random.Random) -> list[tuple[float, Webhook]]:
    """When each is sent: as callbacks twice, half of them in Event Streams arrays too, shuffled within ±2 seconds."""
    plan = [
        (place / per_s + dice.uniform(0, 4), taskrouter_webhook(event, ""))
        for place, event in enumerate(events)
        for _ in range(2)
    ]
    streamed = [
        (place / per_s + dice.uniform(0, 4), event)
        for place, event in enumerate(events)
        if dice.random() < 0.5
    ]
    streamed.sort(key=lambda one: one[0])
    for start in range(0, len(streamed), 5):
        chunk = streamed[start : start + 5]
        plan.append((chunk[-1][0], stream_webhook([event for _, event in chunk], "")))
    return sorted(plan, key=lambda one: one[0])


async def send(url: str, plan: list[tuple[float, Webhook]], statuses: Counter) -> None:
    """Each at its time, again until it is taken."""
    began = time.monotonic()
    at_once = asyncio.Semaphore(50)  # httpx looks through all that wait for a connection, each time
    async with httpx.AsyncClient(base_url=url, timeout=15) as client:

        async def one(at: float, webhook: Webhook) -> None:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            path, headers = signed(webhook, PUBLIC, TOKEN)
            while True:
                try:
                    async with at_once:
                        status = (await client.post(path, content=webhook.body, headers=headers)).status_code
                except httpx.TransportError:
                    status = 0
                statuses[status] += 1
                if 200 <= status < 300:
                    return
                await asyncio.sleep(0.2)

        async with asyncio.TaskGroup() as group:
            for at, webhook in plan:
                group.create_task(one(at, webhook))


def difference(person: Person, brevo: BrevoSandbox) -> dict[str, tuple[object, object]] | str:
    """What Brevo holds of a person and what it shall, where they differ."""
    told = brevo.contact(email_id=person.email)
    if told is None:
        return "absent"
    wanted = person.expected()
    return {
        name: (told.attributes.get(name), wanted[name])
        for name in wanted
        if told.attributes.get(name) != wanted[name]
    }


async def brevo_has(brevo: BrevoSandbox, people: list[Person], seconds: float) -> None:
    """Return once every expected event arrived and the last contacts are told; fails with what is missing."""
    wanted = Counter(event for person in people for event in person.events)
    deadline = time.monotonic() + seconds
    while True:
        have = Counter((event.name, event.properties["task_sid"]) for event in brevo.events)
        wrong = {person.email: found for person in people if (found := difference(person, brevo))}
        if have == wanted and not wrong:
            return
        assert time.monotonic() < deadline, {
            "missing": wanted - have,
            "too much": have - wanted,
            "wrong": wrong,
        }
        await asyncio.sleep(0.1)


def check_bodies(brevo: Recording) -> None:
    """Every body that was sent fits Brevo's published schema."""
    validators = {
        path: OAS31Validator(
            {
                **SPEC["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"],
                "components": SPEC["components"],
            }
        )
        for path in ("/contacts", "/events/batch")
    }
    checked = Counter()
    for method, path, body in brevo.bodies:
        if method == "POST" and path in validators:
            validators[path].validate(json.loads(body))
            checked[path] += 1
    assert checked["/contacts"]
    assert checked["/events/batch"]


async def stream_state(environment: dict[str, str], name: str):
    connection = await nats.connect(environment["TAJO_NATS_URL"])
    try:
        return (await connection.jetstream().stream_info(name)).state
    finally:
        await connection.close()


def settings(brevo_url: str, brevo: BrevoSandbox) -> dict[str, str]:
    return {
        "TAJO_PUBLIC_URL": PUBLIC, "TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "BREVO_API_KEY": brevo.api_key, "TAJO_BREVO_URL": f"{brevo_url}/v3", "TAJO_BREVO_RATE_FRACTION": "1",
    }  # fmt: skip


@pytest.mark.timeout(240)
async def test_2000_webhooks_twice_shuffled_and_from_two_sources_are_each_told_once(everything):
    dice = random.Random(2026)
    people, events = traffic(2000, dice)
    brevo, statuses = Recording(limits=FAST), Counter()
    async with serving(brevo) as url:
        tajo = everything(**settings(url, brevo))
        await asyncio.to_thread(tajo.start, ready=True)

        await send(tajo.url, schedule(events, 200, dice), statuses)
        await brevo_has(brevo, people, 60)
        log, dead = (
            await stream_state(tajo.environment, "TWILIO"),
            await stream_state(tajo.environment, "DEAD"),
        )
        errors = await asyncio.to_thread(tajo.end)

    assert set(statuses) <= {200, 204}
    assert log.messages == len(events)
    assert dead.messages == 0
    assert not brevo.orphans
    assert len(brevo.contacts.by_id) == len(people)
    assert all(brevo.contact(email_id=person.email).list_ids == {32} for person in people)
    check_bodies(brevo)
    assert b"Traceback" not in errors


@pytest.mark.timeout(240)
@pytest.mark.parametrize("lost", ["nothing", "mapper"])
async def test_everything_stopped_mid_way_and_started_again_loses_and_doubles_nothing(everything, lost):
    dice = random.Random(7)
    people, events = traffic(800, dice)
    brevo, statuses = Recording(limits=FAST), Counter()
    async with serving(brevo) as url:
        tajo = everything(**settings(url, brevo))
        await asyncio.to_thread(tajo.start, ready=True)

        sending = asyncio.create_task(send(tajo.url, schedule(events, 200, dice), statuses))
        for _ in range(2):
            seen = len(brevo.events)
            while len(brevo.events) < seen + 60:  # noqa: ASYNC110 - two sides of one wire
                await asyncio.sleep(0.02)
            await asyncio.to_thread(tajo.end)
            shutil.rmtree(Path(tajo.environment["TAJO_DATA_DIR"]) / lost, ignore_errors=True)
            await asyncio.to_thread(tajo.start, ready=True)
        await sending
        await brevo_has(brevo, people, 60)
        log = await stream_state(tajo.environment, "TWILIO")
        errors = await asyncio.to_thread(tajo.end)

    assert set(statuses) <= {0, 200, 204, 503}
    assert statuses[0] > 0
    assert log.messages == len(events)
    assert not brevo.orphans
    assert b"Traceback" not in errors


def test_the_traffic_reaches_what_it_is_meant_to():
    people, events = traffic(2000, random.Random(2026))
    types = Counter(event.type for event in events)
    by_channel = defaultdict(set)
    for person in people:
        for _, channel in person.starts:
            by_channel[channel].add(person.number)

    assert {"task.canceled", "task.transfer-completed", "reservation.wrapup", "task.completed"} <= set(types)
    assert all(len(by_channel[channel]) > 20 for channel in CHANNELS)
