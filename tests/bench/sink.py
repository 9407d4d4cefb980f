"""The sink behind a backlog: without a limit, against a bare httpx loop at the same stand-in; and behind a limit, against that."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import uvloop

from brevo_sink.request import contact
from shared import bus, command, trace
from shared.command import Command, ContactUpsert, EventTrack
from tests.bench import machine
from tests.bench.brevo import Brevo, Call
from tests.bench.figures import Figure, Found, memory

LOOK_S = 0.1
FULL, QUICK = (4_000, 60_000, 60), (100, 1_000, 3)  # contacts, events, seconds behind the limit
LIMIT = 50  # calls a second, of the second figure
OURS = 0.7  # of the limit: the sink's default fraction, without which no call is spared when two take unequally long
AT_ONCE = 6  # of httpx alone, which is slower with more: its pool looks at each connection for each call


def upserts(count: int) -> list[ContactUpsert]:
    """Each of another contact."""
    return [
        ContactUpsert(
            id=f"tajo-{n}/1/m/0", ext_id=f"tajo-{n}", version=1, mapping="m", email=f"person{n}@example.com",
            attributes={"FIRSTNAME": f"Person {n}", "SUPPORT_TICKET_COUNT": 3, "PREFERRED_CHANNEL": "voice"},
        )
        for n in range(count)
    ]  # fmt: skip


def events(count: int, contacts: int) -> list[EventTrack]:
    """Spread over the contacts."""
    return [
        EventTrack(
            id=f"WT{n:032x}/task.created", ext_id=f"tajo-{n % contacts}", name="SUPPORT_REQUESTED",
            time="2026-11-20T10:00:00.000Z", properties={"task_sid": f"WT{n:032x}", "channel": "voice", "queue": "Support"},
        )
        for n in range(count)
    ]  # fmt: skip


def told(folder: Path, said: Sequence[Command], calls: int, per_s: int) -> tuple[list[Call], float, float]:
    """The calls that came of a backlog, at least so many, the sink's seconds of CPU, and its most memory."""
    with machine.broker(folder) as broker, Brevo(folder, per_s) as brevo:
        asyncio.run(_say(broker.url, said))
        environment = (
            {**brevo.environment, "TAJO_BREVO_RATE_FRACTION": str(OURS)} if per_s else brevo.environment
        )
        with machine.Service("brevo-sink", folder, broker.url, **environment) as sink:
            sink.ready()
            cpu_s, before, made = sink.cpu_s, -1, brevo.calls
            while sum(one.size for one in made if one.status < 300) < calls or len(made) != before:
                sink.alive()
                before = len(made)
                time.sleep(LOOK_S)
                made = brevo.calls
            return made, sink.cpu_s - cpu_s, sink.peak_mb


async def _say(url: str, said: Sequence[Command]) -> None:
    broker = bus.connect(url, service="bench")
    await broker.connect()
    await bus.Publisher(broker).publish([command.to_message(one, trace.start()) for one in said])
    await broker.stop()


async def _bare(url: str, bodies: list[dict]) -> float:
    waiting = iter(bodies)

    async def work(client: httpx.AsyncClient) -> None:
        for body in waiting:  # shared: each takes the next
            (await client.post("/contacts", json=body)).raise_for_status()

    async with httpx.AsyncClient(base_url=url, headers={"api-key": "xkeysib-sandbox"}) as client:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work(client))
        return time.monotonic() - began


def bare(folder: Path, commands: list[ContactUpsert]) -> float:
    """Seconds in which httpx alone posts the same bodies, as many at once."""
    bodies = [contact(one, one.ext_id) for one in commands]
    with Brevo(folder) as brevo, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_bare(f"{brevo.url}/v3", bodies))


def span_s(calls: Sequence[Call]) -> float:
    """From the first to the last."""
    return calls[-1].at - calls[0].at


def measure(*, quick: bool) -> Found:
    """Four figures."""
    people, happened, limited_s = QUICK if quick else FULL
    with machine.folder() as folder:
        contacts = upserts(people)
        bare_s = bare(folder, contacts) / 2
        calls, cpu_s, peak_mb = told(folder / "upserts", contacts, people, 0)
        bare_s += bare(folder, contacts) / 2  # before and after: what else the machine does changes
        ours_s = span_s([one for one in calls if one.path == "/v3/contacts"])
        few = upserts(100)
        batched, events_cpu_s, events_peak_mb = told(
            folder / "events", [*few, *events(happened, len(few))], happened + len(few), 0
        )
        batches = [one for one in batched if one.path == "/v3/events/batch"]
        per_s = sum(one.size for one in batches[1:]) / span_s(batches)
        ours = LIMIT * OURS
        many = round(ours * limited_s)
        slow, _, _ = told(folder / "limited", upserts(many), many, LIMIT)
        kept = [one for one in slow if one.path == "/v3/contacts"][LIMIT:]
        used = (len(kept) - 1) / span_s(kept) / ours
    figures = [
        Figure(
            what="sink behind a backlog, no limit: events",
            found=f"{per_s:,.0f}/s in {len(batches)} calls, {events_cpu_s / happened * 1e6:.0f} µs of CPU each",
            target="≥ 3,000/s in batches",
            met=per_s >= 3000,
        ),
        Figure(
            what="sink behind a backlog, no limit: contacts",
            found=f"{people / ours_s:,.0f}/s, {cpu_s / people * 1e6:.0f} µs of CPU each",
            ceiling=f"httpx alone, {AT_ONCE} at once: {people / bare_s:,.0f}/s",
            ratio=bare_s / ours_s,
            least=0.7,
        ),
        Figure(
            what=f"sink behind a backlog, {LIMIT} calls/s allowed",
            found=f"{used * ours:.1f} calls/s, {sum(one.status == 429 for one in slow)} refused",
            ceiling=f"the part that is ours, {OURS}: {ours:.0f}/s",
            ratio=used,
            least=0.95,
        ),
        memory("brevo-sink", max(peak_mb, events_peak_mb)),
    ]
    numbers = {
        "sink.events_per_s": per_s,
        "sink.event_cpu_us": events_cpu_s / happened * 1e6,
        "sink.contacts_per_s": people / ours_s,
        "sink.contacts_ratio": bare_s / ours_s,
        "sink.budget_used": used,
        "sink.peak_mb": max(peak_mb, events_peak_mb),
    }
    return Found(figures=figures, numbers=numbers)
