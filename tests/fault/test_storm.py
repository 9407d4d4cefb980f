"""Signed webhooks without end while everything is killed: at the end Brevo holds each event once."""

import asyncio
import random
import signal
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import nats
import pytest
from rich.progress import Progress

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.limits import Limits
from sandbox.load import send
from sandbox.play import Target
from sandbox.traffic import compare, schedule, traffic
from sandbox.twilio import ACCOUNT_SID

TOKEN, PUBLIC = "token-of-twilio", "https://hooks.example.com"
FAST = Limits(  # what the sink learns from the headers; without any it keeps to Brevo's lowest plan
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
SERVICES = ("ingest", "mapper", "brevo-sink")
BROKER = "nats-server"
WEBHOOKS_PER_EVENT = 2.1  # twice as a callback, half of them in an Event Streams request of five
AGAIN = 0.2  # of the killed are killed again while they start
SHARE_AWAY = 5  # as many webhooks are sent while the broker is away as for so many kills
DRAIN_S = 300.0  # at most, from the last webhook until Brevo has everything


@dataclass(frozen=True)
class Blow:
    """What is done to whom."""

    victim: str
    what: str = "killed"

    @property
    def share(self) -> int:
        """Of the webhooks, sent around it."""
        return SHARE_AWAY if "away" in self.what else 1


class Gate:
    """Lets webhooks through up to a number, and tells when so many were taken."""

    def __init__(self) -> None:
        self._allowed = self._let_in = self._taken = 0
        self._moved = asyncio.Event()

    async def _until(self, reached) -> None:
        while not reached():
            await self._moved.wait()

    def _move(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def turn(self) -> None:
        """Return when one more may be sent."""
        await self._until(lambda: self._let_in < self._allowed)
        self._let_in += 1

    def took(self) -> None:
        """One was answered with 2xx."""
        self._taken += 1
        self._move()

    def allow(self, number: int) -> None:
        """So many may be sent, in all."""
        self._allowed = number
        self._move()

    async def taken(self, number: int) -> None:
        """Return when so many were taken, in all."""
        await self._until(lambda: self._taken >= number)


@dataclass
class Storm:
    """The processes, and what befell them."""

    services: dict[str, Any]  # by name, the fixture's
    broker: Any
    away_s: float
    dice: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    recovery_s: dict[Blow, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def strike(self, blow: Blow) -> None:
        """Do it, and return when all are ready again."""
        match blow.what:
            case "stopped and started, one after the other":
                began = time.monotonic()
                for one in self.services.values():
                    await asyncio.to_thread(one.end)
                    one.start()
            case "stopped, away":
                began = await self._absent(self.broker.stop)
            case "killed, away":
                self.kills[BROKER] += 1
                began = await self._absent(self.broker.kill)
            case _:
                began = await self._kill(blow.victim)
        for one in self.services.values():
            await asyncio.to_thread(one.wait, 200)
        self.recovery_s[blow].append(time.monotonic() - began)

    async def _absent(self, end) -> float:
        end()
        await asyncio.sleep(self.away_s)  # webhooks go on coming
        began = time.monotonic()
        await asyncio.to_thread(self.broker.start)
        return began

    async def _kill(self, victim: str) -> float:
        one = self.services.get(victim)
        while True:
            self.kills[victim] += 1
            began = time.monotonic()
            if one is None:
                self.broker.kill()
                await asyncio.to_thread(self.broker.start)
            else:
                one.end(signal.SIGKILL)
                one.start()
            if self.dice.random() > AGAIN:
                return began
            await asyncio.sleep(self.dice.random())  # somewhere in its start


def blows(kills: int, dice: random.Random) -> list[Blow]:
    """Each victim as often, in any order; the services once in turn, and twice a broker that stays away."""
    plan = [Blow((*SERVICES, BROKER)[number % 4]) for number in range(kills)]
    dice.shuffle(plan)
    plan.insert(3 * kills // 4, Blow(BROKER, "killed, away"))
    plan.insert(kills // 2, Blow("every service", "stopped and started, one after the other"))
    plan.insert(kills // 4, Blow(BROKER, "stopped, away"))
    return plan


async def go_through(storm: Storm, plan: list[Blow], gate: Gate, webhooks: int, on_blow) -> None:
    """Each blow at a moment while its share of the webhooks is sent; then let the rest in."""
    each = webhooks / sum(blow.share for blow in plan)
    begun = 0.0
    for blow in plan:
        ends = begun + blow.share * each
        gate.allow(round(ends))
        await gate.taken(round(begun + storm.dice.random() * each))
        await storm.strike(blow)
        on_blow()
        begun = ends
    gate.allow(webhooks)


async def all_told(brevo: BrevoSandbox, people, events: int) -> float:
    """Wait until Brevo has everything, at most DRAIN_S; how long it took."""
    began = time.monotonic()
    while time.monotonic() - began < DRAIN_S:
        if len(brevo.events) >= events and compare(brevo, people).nothing:
            break
        await asyncio.sleep(0.25)
    return time.monotonic() - began


async def messages(url: str, stream: str) -> int:
    connection = await nats.connect(url)
    try:
        return (await connection.jetstream().stream_info(stream)).state.messages
    finally:
        await connection.close()


@pytest.mark.timeout(3600)  # of `make fault`; here it is a minute
async def test_nothing_is_lost_or_doubled_while_everything_is_killed(
    service, nats_server, reliability, pytestconfig
):
    webhooks, kills = pytestconfig.getoption("--storm-webhooks"), pytestconfig.getoption("--storm-kills")
    dice = random.Random(time.time_ns())  # another storm each time; what it shall end as is the same
    people, happened = traffic(int(webhooks / WEBHOOKS_PER_EVENT) + 1, dice)
    brevo, gate = BrevoSandbox(limits=FAST), Gate()
    made = schedule(happened, 800, dice)
    async with serving(brevo) as url:
        told = {
            "TAJO_NATS_URL": nats_server.url, "TAJO_PUBLIC_URL": PUBLIC, "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID, "BREVO_API_KEY": brevo.api_key,
            "TAJO_BREVO_URL": f"{url}/v3", "TAJO_BREVO_RATE_FRACTION": "1",
        }  # fmt: skip
        services = {name: service(name, **told) for name in SERVICES}
        for one in services.values():
            one.start()
        for one in services.values():
            await asyncio.to_thread(one.wait, 200)
        storm = Storm(services, nats_server, pytestconfig.getoption("--storm-away"), dice)
        plan = blows(kills, dice)

        began = time.monotonic()
        with Progress(disable=None) as bar:
            task = bar.add_task("storm", total=len(plan))
            async with asyncio.TaskGroup() as group:
                group.create_task(go_through(storm, plan, gate, len(made), lambda: bar.advance(task)))
                sending = group.create_task(
                    send(
                        made,
                        Target(services["ingest"].url, PUBLIC, TOKEN),
                        turn=gate.turn,
                        on_taken=lambda _: gate.took(),
                    )
                )
        sent_s = time.monotonic() - began
        events = sum(len(person.events) for person in people)
        drained_s = await all_told(brevo, people, events)
        found, statuses = compare(brevo, people), sending.result()
        in_log, dead = await messages(nats_server.url, "TWILIO"), await messages(nats_server.url, "DEAD")
        errors = b"".join([await asyncio.to_thread(one.end) for one in services.values()])

    killed = ", ".join(f"{name} {storm.kills[name]}" for name in (*SERVICES, BROKER))
    answers = ", ".join(f"{count:,} of {status or 'none'}" for status, count in sorted(statuses.items()))
    reliability.add(
        "Webhooks while everything is killed",
        f"""
{len(made):,} signed webhooks were sent in {sent_s:,.0f} s: each event twice as a callback, half of them in Event Streams
requests too, shuffled by up to 800 places, each again until it was answered with 2xx.  Meanwhile there were
**{storm.kills.total()} SIGKILLs** ({killed}), at random moments.  Answers: {answers}.

Brevo had everything {drained_s:.1f} s after the last: {events:,} events, {len(people):,} contacts.
**{found.lost.total()} lost, {found.doubled.total()} doubled, {len(found.wrong)} contacts wrong.**

Recovery is the time from the kill, or from the end of the absence, until all say that they are ready.
""",
        ("who", "what", "times", "recovery, median s", "longest s"),
        recovery(storm),
    )
    assert found.nothing, found
    assert in_log == len(happened)
    assert not dead
    assert not brevo.orphans
    assert set(statuses) <= {0, 200, 204, 503}
    assert b"Traceback" not in errors


def recovery(storm: Storm) -> list[tuple[str, ...]]:
    """A row for each kind of blow."""
    return [
        (blow.victim, blow.what, str(len(times)), f"{statistics.median(times):.1f}", f"{max(times):.1f}")
        for blow, times in sorted(
            storm.recovery_s.items(), key=lambda item: (item[0].share, item[0].what, item[0].victim)
        )
    ]
