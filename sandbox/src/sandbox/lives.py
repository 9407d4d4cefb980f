"""Customers of whom one learns late who they are: phones and mails that turn out to be one person's, phones that two share,
mails that an agent asks for or a conversation is given, tasks that are edited, surveys that come after everything else.

What Brevo shall hold in the end is for whoever plays it to say.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sandbox.flex import OUR_NUMBER, messaging, voice
from sandbox.task import Agent, Task
from sandbox.twilio import (
    TaskRouterEvent,
    Webhook,
    conversation_webhook,
    sid,
    stream_webhook,
    survey_webhook,
    taskrouter_webhook,
)

LATER_S = 300.0  # between two contacts of one customer
_ANA, _BEN = Agent("ana@example.com", "Ana Pérez"), Agent("ben@example.com", "Ben Okafor")


@dataclass
class Lives:
    """What happened, in order, and whose phones are shared in the end."""

    happened: list[TaskRouterEvent | Webhook] = field(default_factory=list)
    shared: set[str] = field(default_factory=set)  # phones


def lives(count: int, dice: random.Random) -> Lives:
    """So many customers; each tenth shares a phone with the one before."""
    made = Lives()
    timed: list[tuple[int, TaskRouterEvent | Webhook]] = []
    for number in range(count):
        shares = number % 10 == 9
        phone = f"+1202{5_550_000 + number - shares:07d}"
        if shares:
            made.shared.add(phone)
        timed += _life(number, phone, dice)
    made.happened = [one for _, one in sorted(timed, key=lambda pair: pair[0])]
    return made


def _life(number: int, phone: str, dice: random.Random) -> list[tuple[int, TaskRouterEvent | Webhook]]:
    mail = {"customers": {"email": f"life{number}@example.com", "phone": phone}}
    external = {"customers": {"external_id": f"X{number}"}}
    begins = 6 * 3600 + number * 3.0
    told: list[tuple[int, TaskRouterEvent | Webhook]] = []
    # At first a phone or an account alone, in the end the mail with it; some stay what they were.
    second = dice.choice([{}, external, mail])
    last = {"customers": {**mail["customers"], **(external["customers"] if second is external else {})}}
    stages: list[dict[str, Any]] = [{}, second, last]
    for stage, known in enumerate(stages[: dice.choice([1, 2, 3, 3, 3])]):
        told += _contact(f"life {number} {stage}", phone, known, begins + stage * LATER_S, dice)
    return told


def _contact(
    name: str, phone: str, known: dict[str, Any], begins_s: float, dice: random.Random
) -> list[tuple[int, TaskRouterEvent | Webhook]]:
    def clock(after_s: float) -> str:
        ms = round((begins_s + after_s) * 1000)
        return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"

    tier = {"customer_tier": dice.choice(["gold", "silver"])}
    late = "customers" in known and dice.random() < 0.3
    first = tier if late else {**tier, **known}
    called = dice.random() < 0.5
    if called:
        task = Task(name, "voice", "Support Voice", voice(phone, name, **first))
    else:
        task = Task(name, "chat", "Support Chat", messaging("sms", name, phone, name, **first))
    events = task.created(clock(0))
    if dice.random() < 0.2:
        events += task.canceled(clock(40))
        return [(event.time_ms, event) for event in events]
    events += task.accepted(clock(20), _ANA)
    written = late and not called and dice.random() < 0.5  # into the conversation, and not into its task
    if late and not written:
        events += task.updated(clock(30), known)
    if dice.random() < 0.2:
        events += task.updated(clock(40), {"customer_tier": "bronze"})
    agent = _ANA
    if dice.random() < 0.2:
        events += task.transferred(clock(60), _ANA, _BEN, "Second line")
        agent = _BEN
    events += task.wrapup(clock(120), agent) + task.completed(clock(150), agent)
    told: list[tuple[int, TaskRouterEvent | Webhook]] = [(event.time_ms, event) for event in events]
    if not called:
        told += _conversation(name, phone, task.created_ms, known if written else {})
    if dice.random() < 0.4:
        at_ms = task.created_ms + dice.choice([100_000, 410_000, 4_020_000])
        told.append((at_ms, survey_webhook("", at_ms, task_sid=task.sid, score=dice.randint(1, 5))))
    return told


def _conversation(name: str, phone: str, at_ms: int, known: dict[str, Any]) -> list[tuple[int, Webhook]]:
    """What Conversations tells of a task's: begun before it, perhaps edited, closed before the agent has written it up."""
    of = {"ConversationSid": sid("CH", name)}
    address = {
        "ParticipantSid": sid("MB", name), "MessagingBinding_Type": "sms", "MessagingBinding_Address": phone,
        "MessagingBinding_ProxyAddress": OUR_NUMBER,
    }  # fmt: skip
    closed = {"StateFrom": "active", "StateTo": "closed"}
    found = [
        (-900, "onConversationAdded", {}), (-800, "onParticipantAdded", address),
        *([(35_000, "onConversationUpdated", {"Attributes": json.dumps(known)})] if known else []),
        (110_000, "onConversationStateUpdated", closed),
    ]  # fmt: skip
    return [
        (at_ms + after_ms, conversation_webhook("", what, at_ms + after_ms, **of, **fields))
        for after_ms, what, fields in found
    ]


def webhooks(made: Lives, shuffled: int, dice: random.Random) -> list[Callable[[], Webhook]]:
    """What is sent: callbacks twice, a third of the events by Event Streams too, each moved by up to `shuffled` places."""
    plan: list[tuple[float, Callable[[], Webhook]]] = []
    for place, one in enumerate(made.happened):
        if isinstance(one, Webhook):
            makes: list[Callable[[], Webhook]] = [partial(_same, one)] * 2
        else:
            makes = [partial(taskrouter_webhook, one, "")] * 2
            makes += [partial(stream_webhook, [one], "")] if dice.random() < 1 / 3 else []
        plan += [(place + dice.uniform(0, shuffled), make) for make in makes]
    return [make for _, make in sorted(plan, key=lambda pair: pair[0])]


def _same(webhook: Webhook) -> Webhook:
    return webhook
