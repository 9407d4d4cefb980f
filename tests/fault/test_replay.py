"""Replays planned and applied while all that takes part is killed: Brevo ends as if nobody had been."""

import asyncio
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ingest.sources import Request, read
from mapper.story import Then, tell
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import Limits
from sandbox.lives import Lives, lives, webhooks
from sandbox.twilio import ACCOUNT_SID
from shared import event, trace
from shared.connector_file import parse
from shared.message import MSG_ID, Message
from shared.publish import NotPublishedError
from shared.topology import BREVO_SINK, BREVO_SINK_PAST, MAPPER

ROOT = Path(__file__).parent.parent.parent
BEFORE = (ROOT / "config/tajo.yaml").read_text()
AFTER = BEFORE.replace("SUPPORT_RESOLVED", "SOLVED").replace("SUPPORT_TICKET_COUNT", "TICKETS").replace(
    "  task.completed:", "  task.wrapup: WRAPPED_UP\n  task.completed:"
)  # fmt: skip
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
CUSTOMERS_PER_KILL = 10
GROUP = 500  # raw events said at once
KILLS_PER_REPLAY = 4
HISTORY = 0.6  # of what is heard stands in the log before the first replay; the rest comes while they go on
AGAIN = 0.2  # of what is heard comes twice, the second time too late for the broker's dedup window
ALIVE_S = 2.5  # at most, between two kills
AWAY = (69, -signal.SIGKILL)  # how the command ends when the broker, or it, was killed
DRAIN_S = 300.0  # at most, from the last replay until Brevo has everything


@dataclass
class Kills:
    """Everything that takes part, and what befell it."""

    services: dict[str, Any]  # by name, the fixture's
    broker: Any
    dice: random.Random
    command: subprocess.Popen[bytes] | None = None  # `tajo replay`, while it runs
    done: Counter[str] = field(default_factory=Counter)

    async def strike(self) -> None:
        """Kill one of them, and start it again; who runs the command starts that again."""
        victim = self.dice.choice([*self.services, *self.services, "nats-server", "tajo replay"])
        self.done[victim] += 1
        if victim == "tajo replay":
            if self.command is not None:
                self.command.kill()
        elif victim == "nats-server":
            self.broker.kill()
            await asyncio.to_thread(self.broker.start)
        else:
            await asyncio.to_thread(self.services[victim].end, signal.SIGKILL)
            self.services[victim].start()


class Command:
    """`tajo replay`, run again until it has done what it is for."""

    def __init__(self, kills: Kills, environment: dict[str, str]) -> None:
        self._kills, self._environment = kills, environment

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        self._kills.command = subprocess.Popen(
            [sys.executable, "-m", "tajo", "replay", *words, "--json"],
            env={**os.environ, **self._environment}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        return self._kills.command

    async def run(self, *words: str) -> None:
        while True:
            process = self.begin(*words)
            _, errors = await asyncio.to_thread(process.communicate)
            if process.returncode == 0:
                return
            assert process.returncode in AWAY, errors.decode()


def raw_events(made: Lives, dice: random.Random) -> list[Message]:
    """As ingest publishes them, a little out of order; some of them twice."""
    found: list[Message] = []
    for make in webhooks(made, 10, dice):
        webhook = make()
        request = Request(webhook.route, webhook.body, 0, ACCOUNT_SID, keep_bodies=False)
        found += [event.to_message(one, trace.start()) for one in read(request).events]
    again = [
        Message(one.subject, one.body, {**one.headers, MSG_ID: f"{one.headers[MSG_ID]}-{number}"})
        for number, one in enumerate(found)
        if dice.random() < AGAIN
    ]
    for one in again:
        found.insert(dice.randrange(len(found)), one)
    return found


def differences(brevo: BrevoSandbox, then: Then, made: Lives) -> list[str]:
    """Contacts that are not as one who heard everything once says.

    Whose phone is shared in the end keeps what it was told while the phone was one person's.
    """
    wrong = []
    for ext_id, wanted in then.contacts.items():
        if not wanted.attributes["TICKETS"] or wanted.attributes["FLEX_IDENTITY"] in made.shared:
            continue
        attributes = dict(wanted.attributes)
        if "SMS" in attributes:
            attributes["SMS"] = str(attributes["SMS"]).removeprefix("+")
        have = brevo.contact(ext_id=ext_id)
        if (
            have is None
            or (have.email or None) != wanted.email
            or not attributes.items() <= have.attributes.items()
            or not set(wanted.list_ids) <= have.list_ids
        ):
            wrong.append(ext_id)
    return wrong


def portions(messages: Sequence[Message], count: int) -> list[Sequence[Message]]:
    return [messages[len(messages) * n // count : len(messages) * (n + 1) // count] for n in range(count)]


async def say(nats_server: Any, *some: Message) -> None:
    """As ingest does: a broker that has just begun again, or is busy, may not take it yet."""
    while True:
        with suppress(NotPublishedError):
            return await nats_server.say(*some)
        await asyncio.sleep(0.2)


async def until_told(brevo: BrevoSandbox, then: Then, made: Lives) -> float:
    """Wait until Brevo has everything, at most DRAIN_S; how long it took."""
    began = time.monotonic()
    while time.monotonic() - began < DRAIN_S:
        if len(brevo.events) >= len(then.events) and not differences(brevo, then, made):
            break
        await asyncio.sleep(0.25)
    return time.monotonic() - began


@pytest.mark.timeout(3600)  # of `make fault`; here it is a minute
async def test_replays_are_applied_exactly_while_all_that_takes_part_is_killed(
    service, nats_server, reliability, pytestconfig, tmp_path
):
    wanted_kills, dice = pytestconfig.getoption("--replay-kills"), random.Random(time.time_ns())
    # Forth and back and forth: the last is always to AFTER.
    replays = wanted_kills // KILLS_PER_REPLAY or 1
    replays -= replays % 2 == 0
    made = lives(wanted_kills * CUSTOMERS_PER_KILL, dice)
    messages = raw_events(made, dice)
    known = round(len(messages) * HISTORY)
    meanwhile = iter(portions(messages[known:], wanted_kills))
    file, wanted = tmp_path / "tajo.yaml", tmp_path / "wanted.yaml"
    file.write_text(BEFORE)
    brevo = BrevoSandbox(limits=FAST)
    async with serving(brevo) as url:
        told = {
            "TAJO_NATS_URL": nats_server.url, "TAJO_CONFIG": str(file), "BREVO_API_KEY": brevo.api_key,
            "TAJO_BREVO_URL": f"{url}/v3", "TAJO_BREVO_RATE_FRACTION": "1", "TAJO_BREVO_LOOK_S": "0.3",
        }  # fmt: skip
        services = {name: service(name, **told) for name in ("mapper", "brevo-sink")}
        for one in services.values():
            await asyncio.to_thread(one.start, ready=True)
        for group in portions(messages[:known], known // GROUP + 1):
            await say(nats_server, *group)
        for consumer in (MAPPER, BREVO_SINK, BREVO_SINK_PAST):
            await nats_server.all_acked(consumer, 120)
        brevo.faults.append(Fault("latency", seconds=0.05, times=None))
        kills = Kills(services, nats_server, dice)
        command = Command(kills, told)

        async def strike(times: int) -> None:
            for _ in range(times):
                await say(nats_server, *next(meanwhile))
                await asyncio.sleep(dice.random() * ALIVE_S)
                await kills.strike()

        took_s = []
        for number, share in enumerate(portions(range(wanted_kills), replays)):
            began = time.monotonic()
            plan = str(tmp_path / f"{number}.plan.json")
            wanted.write_text(BEFORE if number % 2 else AFTER)
            planning = dice.randint(0, len(share))
            async with asyncio.TaskGroup() as group:
                group.create_task(strike(planning))
                group.create_task(
                    command.run("--plan", "--send-old-events", "--mapping", str(wanted), "--out", plan)
                )
            file.write_text(wanted.read_text())
            async with asyncio.TaskGroup() as group:
                group.create_task(strike(len(share) - planning))
                group.create_task(command.run("--apply", plan, "--yes"))
            took_s.append(time.monotonic() - began)
        for one in services.values():
            await asyncio.to_thread(one.wait, 200)
        brevo.faults.clear()
        events = [event.from_message(one.subject, one.headers, one.body) for one in messages]
        then = tell(parse(AFTER, "after"), events)
        drained_s = await until_told(brevo, then, made)
        for consumer in (MAPPER, BREVO_SINK, BREVO_SINK_PAST):
            await nats_server.all_acked(consumer, 120)
        errors = b"".join([await asyncio.to_thread(one.end) for one in services.values()])

    have = Counter(one.properties["idempotency_key"] for one in brevo.events)
    shall, wrong = Counter(one.id for one in then.events), differences(brevo, then, made)
    killed = ", ".join(f"{name} {count}" for name, count in sorted(kills.done.items()))
    reliability.add(
        "Replays planned and applied while everything is killed",
        f"""
{len(messages):,} raw events of {len(then.contacts):,} customers, {1 - HISTORY:.0%} of them heard meanwhile; {replays} replays forth and
back between two mappings, and **{kills.done.total()} SIGKILLs** ({killed}) at random moments while `tajo replay --plan` and `--apply`
ran; the command was run again whenever it had been cut off.

Brevo had everything {drained_s:.1f} s after the last: {shall.total():,} events.
**{(shall - have).total()} lost, {(have - shall).total()} doubled, {len(wrong)} contacts wrong.**
""",
        ("replays", "kills", "planned and applied, median s", "longest s"),
        [(replays, kills.done.total(), f"{statistics.median(took_s):.1f}", f"{max(took_s):.1f}")],
    )
    assert have == shall
    assert not wrong
    assert not brevo.orphans
    assert not await nats_server.messages("DEAD")
    assert b"Traceback" not in errors
