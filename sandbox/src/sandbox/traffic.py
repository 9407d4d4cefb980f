"""A stream of contacts with people who come back, as large as asked, and what Brevo shall hold of each after it.

What is expected is counted here by the definitions and not by the product's code.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sandbox.brevo import BrevoSandbox
from sandbox.flex import OUR_NUMBER, messaging, voice
from sandbox.items import Conversation
from sandbox.task import Agent, Task, at
from sandbox.twilio import TaskRouterEvent, Webhook, stream_webhook, taskrouter_webhook

CHANNELS = ("voice", "sms", "whatsapp", "webchat")
CONTACTS_MAX = 19_200  # one each three seconds, from eight in the morning to midnight
CHUNK = 5  # events in one Event Streams request
_ANA, _BEN = Agent("ana@example.com", "Ana Pérez"), Agent("ben@example.com", "Ben Okafor")


@dataclass
class Person:
    """A customer, and what Brevo shall hold at the end, counted here by the definitions and not by our code."""

    number: int
    starts: list[tuple[str, str]] = field(default_factory=list)  # clock, channel; of what became a task
    untaken: list[tuple[str, str]] = field(
        default_factory=list
    )  # of what did not: no contact anybody handled
    waits: list[float] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)  # name, task sid

    @property
    def email(self) -> str:
        """The address in every contact of theirs."""
        return f"person{self.number}@example.com"

    @property
    def phone(self) -> str:
        """The number they call and write from."""
        return f"+1202555{self.number:04d}"

    def expected(self) -> dict[str, object]:
        """Brevo's attributes after all of their contacts."""
        every = self.starts + self.untaken
        counts = Counter(channel for _, channel in every)
        latest = {channel: max(clock for clock, one in every if one == channel) for channel in counts}
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


def contact(
    person: Person, number: int, dice: random.Random, named: str = "contact"
) -> list[TaskRouterEvent]:
    """One contact of a person, handled or abandoned, as TaskRouter tells it; its sids follow from name and number."""
    channel = dice.choice(CHANNELS)
    minute, second = divmod(number * 3, 60)
    clock = f"{8 + minute // 60:02d}:{minute % 60:02d}:{second:02d}.{number % 1000:03d}"
    name = f"{named} {number}"
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
    events += task.accepted(later(accepted), _ANA)
    if channel == "voice" and dice.random() < 0.2:
        events += task.transferred(later(accepted + 60), _ANA, _BEN, "Support Voice")
        return events + task.wrapup(later(accepted + 200), _BEN) + task.completed(later(accepted + 230), _BEN)
    return events + task.wrapup(later(accepted + 100), _ANA) + task.completed(later(accepted + 130), _ANA)


def traffic(
    count: int, dice: random.Random, named: str = "contact"
) -> tuple[list[Person], list[TaskRouterEvent]]:
    """People, and `count` events of theirs; of contacts of another name all sids are others."""
    people = [Person(number) for number in range(count // 20)]
    events: list[TaskRouterEvent] = []
    number = 0
    while len(events) < count:
        events += contact(people[number % len(people)], number, dice, named)
        number += 1
    return people, events


def conversations(people: list[Person], contacts: int, more: int) -> list[Conversation]:
    """Flex's conversation of each contact that was no call, and `more` that never became a task."""
    found: list[Conversation] = []
    for number in range(contacts):
        person = people[number % len(people)]
        clock, channel = person.starts[number // len(people)]
        if channel != "voice":
            found.append(_conversation(f"contact {number}", person, channel, clock))
    for number in range(more):
        person, clock = people[number % len(people)], f"07:{number // 60 % 60:02d}:{number % 60:02d}.000"
        person.untaken.append((clock, "sms"))
        found.append(_conversation(f"nobody took {number}", person, "sms", clock))
    return found


def _conversation(name: str, person: Person, channel: str, clock: str) -> Conversation:
    began_ms = at(clock)
    binding: dict[str, Any] = {"identity": f"visitor-{person.number}"}
    if channel != "webchat":
        address = f"whatsapp:{person.phone}" if channel == "whatsapp" else person.phone
        binding = {"messaging_binding": {"type": channel, "address": address, "proxy_address": OUR_NUMBER}}
    return Conversation(
        name, began_ms, began_ms + 600_000, participants=(binding, {"identity": "ana_40example_2Ecom"})
    )


def schedule(
    events: list[TaskRouterEvent], shuffled: int, dice: random.Random
) -> list[Callable[[], Webhook]]:
    """What is sent, in this order: callbacks twice, and half the events in Event Streams requests too.

    Each moves by up to `shuffled` places.  A webhook is made when it is sent: a hundred thousand are large.
    """

    def moved(place: int) -> float:
        return place + dice.uniform(0, shuffled)

    plan: list[tuple[float, Callable[[], Webhook]]] = [
        (moved(place), partial(taskrouter_webhook, event, ""))
        for place, event in enumerate(events)
        for _ in range(2)
    ]
    streamed = [(moved(place), event) for place, event in enumerate(events) if dice.random() < 0.5]
    streamed.sort(key=lambda one: one[0])
    for start in range(0, len(streamed), CHUNK):
        chunk = streamed[start : start + CHUNK]
        plan.append((chunk[-1][0], partial(stream_webhook, [event for _, event in chunk], "")))
    return [make for _, make in sorted(plan, key=lambda one: one[0])]


@dataclass(frozen=True)
class Found:
    """What of the expected Brevo holds."""

    lost: Counter[tuple[str, str]]  # events, by name and task sid
    doubled: Counter[tuple[str, str]]
    wrong: dict[
        str, dict[str, tuple[object, object]] | str
    ]  # by email: attribute → what is held, what shall be

    @property
    def nothing(self) -> bool:
        """Whether Brevo holds what it shall."""
        return not (self.lost or self.doubled or self.wrong)


def compare(brevo: BrevoSandbox, people: list[Person]) -> Found:
    """Every event and every contact."""
    wanted = Counter(event for person in people for event in person.events)
    have = Counter((event.name, str(event.properties["task_sid"])) for event in brevo.events)
    wrong = {person.email: found for person in people if (found := _difference(person, brevo))}
    return Found(wanted - have, have - wanted, wrong)


def _difference(person: Person, brevo: BrevoSandbox) -> dict[str, tuple[object, object]] | str:
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
