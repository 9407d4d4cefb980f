"""Names that change and come back while much is in hand: what was said of a name counts for whoever had it then."""

import asyncio
import random
import signal
import time
from collections import Counter

import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import Limits
from shared import bus, command
from shared.command import Command, ContactRelink, ContactUpsert, EventTrack
from shared.trace import start

FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
PEOPLE, CHANGES = 60, 4


def story(person: int) -> list[Command]:
    """Of one person: told, and an event; then called otherwise, and back, each time told anew and with an event."""
    names = (f"tajo-a{person}", f"tajo-b{person}")
    said: list[Command] = []
    version = 0
    for change in range(CHANGES + 1):
        now, was = names[change % 2], names[(change + 1) % 2]
        version += 10
        if change:
            said.append(
                ContactRelink(id=f"{was}/{now}/{version}", ext_id=now, was=was, version=version, over=True)
            )
        said += [
            ContactUpsert(
                id=f"{now}/{version}/m/x", ext_id=now, version=version, mapping="m", email=f"p{person}@example.com",
                attributes={"FIRSTNAME": f"P{person} {change}", "SMS": f"+1202555{person:04d}"},
            ),
            EventTrack(
                id=f"WT{person}.{change}/task.created/task.created", ext_id=now, name="SUPPORT_REQUESTED",
                time="2026-11-20T10:00:00.000Z", properties={"task_sid": f"WT{person}.{change}"},
            ),
        ]  # fmt: skip
    return said


def interleaved(dice: random.Random) -> list[Command]:
    """All stories, each in its order."""
    left = [story(person) for person in range(PEOPLE)]
    said: list[Command] = []
    while left:
        one = dice.choice(left)
        said.append(one.pop(0))
        left = [story for story in left if story]
    return said


async def say(url: str, commands: list[Command]) -> None:
    broker = bus.connect(url, service="test")
    await broker.connect()
    await bus.Publisher(broker).publish([command.to_message(one, start()) for one in commands])
    await broker.stop()


@pytest.mark.long
@pytest.mark.parametrize("kills", [0, 3])
async def test_names_that_come_back_in_a_backlog_leave_each_contact_as_told_last(nats_server, service, kills):
    dice = random.Random(time.time_ns())
    said = interleaved(dice)
    brevo = BrevoSandbox(limits=FAST)
    brevo.faults.append(Fault("latency", seconds=0.02, times=None))
    async with serving(brevo) as url:
        await say(nats_server.url, said)
        sink = service(
            "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key, TAJO_BREVO_URL=f"{url}/v3",
            TAJO_BREVO_LOOK_S="0.3", TAJO_BREVO_RATE_FRACTION="1",
        )  # fmt: skip
        await asyncio.to_thread(sink.start, ready=True)
        for _ in range(kills):
            await _calls(brevo, len(brevo.requests) + dice.randrange(20, 60))
            await asyncio.to_thread(sink.end, signal.SIGKILL)
            await asyncio.to_thread(sink.start, ready=True)
        for _ in range(900):
            if _differences(brevo) == []:
                break
            await asyncio.sleep(0.1)

    assert _differences(brevo) == []


async def _calls(brevo: BrevoSandbox, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(brevo.requests) < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def _differences(brevo: BrevoSandbox) -> list[str]:
    """Where Brevo is not as told last."""
    found = []
    for person in range(PEOPLE):
        now = brevo.contact(ext_id=f"tajo-{'ab'[CHANGES % 2]}{person}")
        before = brevo.contact(ext_id=f"tajo-{'ab'[(CHANGES + 1) % 2]}{person}")
        if now is None or before is not None:
            found.append(f"{person} is called wrong")
        elif now.attributes.get("FIRSTNAME") != f"P{person} {CHANGES}":
            found.append(f"{person} is as {now.attributes.get('FIRSTNAME')}")
        elif brevo.contact(email_id=f"p{person}@example.com") is not now:
            found.append(f"the mail of {person} is another's")
    events = Counter(str(event.properties["task_sid"]) for event in brevo.events)
    wanted = Counter(f"WT{person}.{change}" for person in range(PEOPLE) for change in range(CHANGES + 1))
    return (
        found + [f"lost {task}" for task in wanted - events] + [f"doubled {task}" for task in events - wanted]
    )
