"""The sink killed again and again while it tells Brevo: nothing is lost, each event is there once, each doubt has an end."""

import asyncio
import json
import random
import signal
import statistics
import time
from collections import Counter

import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import Limits
from shared.command import Command, ContactDelete, ContactRelink, ContactUpsert, EventTrack
from shared.topology import BREVO_SINK

FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
CONTACTS_PER_KILL = 15
AGAIN = 0.2  # of the kills are followed by one while it starts
ALIVE_S = 0.6  # at most, from when it is ready until it is killed


def upsert(who: str, version: int) -> ContactUpsert:
    return ContactUpsert(
        id=f"{who}/{version}/m/0", ext_id=who, version=version, mapping="m", email=f"{who[5:]}@example.com",
        attributes={"AVG_WAIT_TIME": version},
    )  # fmt: skip


def track(who: str, sid: str) -> EventTrack:
    return EventTrack(id=f"{sid}/task.created", ext_id=who, name="X", time="2026-11-20T10:00:00.000Z")


def life(number: int) -> list[Command]:
    """What is said of one customer: some are renamed, some are forgotten."""
    who = f"tajo-{number}"
    said: list[Command] = [upsert(who, 1), *(track(who, f"WT{number}.{n}") for n in range(3)), upsert(who, 2)]
    if number % 10 == 3:
        now = f"tajo-r{number}"
        said += [
            ContactRelink(id=f"{who}/{now}/3", ext_id=now, was=who, version=3),
            ContactUpsert(
                id=f"{now}/4/m/0", ext_id=now, version=4, mapping="m", email=f"{number}@example.com",
                attributes={"AVG_WAIT_TIME": 4},
            ),
            track(now, f"WT{number}.9"),
        ]  # fmt: skip
    return [*said, track(who, f"WT{number}.10")]


def forgotten(number: int) -> list[Command]:
    return [
        upsert(f"tajo-f{number}", 1),
        ContactDelete(id=f"tajo-f{number}/delete/2", ext_id=f"tajo-f{number}", version=2),
    ]


async def kill(sink, dice: random.Random, portions, say) -> list[float]:
    """For each portion, say it and kill the sink at a random moment; how long each time until it was ready again."""
    ready_s = []
    for portion in portions:
        await say(*portion)
        await asyncio.sleep(dice.random() * ALIVE_S)
        await asyncio.to_thread(sink.end, signal.SIGKILL)
        began = time.monotonic()
        sink.start()
        if dice.random() < AGAIN:
            continue
        await asyncio.to_thread(sink.wait, 200)
        ready_s.append(time.monotonic() - began)
    await asyncio.to_thread(sink.wait, 200)
    return ready_s


def unanswered(receipts: list[dict]) -> set[str]:
    """The events announced for a call of which nothing more was said: the sink was killed, or nobody answered."""
    announced = {one["batch"]: one["ids"] for one in receipts if one["outcome"] == "sending"}
    for one in receipts:
        if one["outcome"] in ("unsent", "delivered"):
            announced.pop(one["batch"], None)
    return {id_ for ids in announced.values() for id_ in ids}


@pytest.mark.long
@pytest.mark.timeout(1800)  # of `make fault`; here it is a minute
async def test_a_sink_killed_again_and_again_tells_each_event_once_and_ends_each_doubt(
    nats_server, service, reliability, pytestconfig
):
    kills, dice = pytestconfig.getoption("--sink-kills"), random.Random(time.time_ns())
    brevo, customers = BrevoSandbox(limits=FAST), kills * CONTACTS_PER_KILL
    lives = [life(number) if number % 7 else forgotten(number) for number in range(customers)]
    async with serving(brevo) as url:
        sink = service(
            "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key,
            TAJO_BREVO_URL=f"{url}/v3", TAJO_BREVO_LOOK_S="0.3", TAJO_BREVO_TIMEOUT_S="2",
            TAJO_BREVO_RATE_FRACTION="1",
        )  # fmt: skip
        await asyncio.to_thread(sink.start, ready=True)
        brevo.faults += [
            Fault("reset_after_apply", every=31, times=None),
            Fault("status_after_apply", status=524, every=47, times=None),
            Fault("latency", seconds=0.05, times=None),
        ]
        portions = [
            [one for said in lives[at : at + CONTACTS_PER_KILL] for one in said]
            for at in range(0, customers, CONTACTS_PER_KILL)
        ]
        ready_s = await kill(sink, dice, portions, nats_server.say)
        brevo.faults.clear()
        await nats_server.all_acked(BREVO_SINK, 120)
        errors = await asyncio.to_thread(sink.end)

    said = [one for every in lives for one in every]
    events = Counter(one.id for one in said if isinstance(one, EventTrack))
    there = Counter(event.properties["idempotency_key"] for event in brevo.events)
    receipts = [json.loads(one.data) for one in await nats_server.messages("RECEIPTS")]
    doubts = unanswered(receipts)
    ended = {id_ for one in receipts if one["outcome"] == "delivered" for id_ in one["ids"]}
    wrong = [
        number
        for number in range(customers)
        if number % 7
        and (found := brevo.contact(ext_id=f"tajo-{'r' if number % 10 == 3 else ''}{number}")) is not None
        and found.attributes["AVG_WAIT_TIME"] != (4 if number % 10 == 3 else 2)
    ]
    kept = {contact.ext_id for contact in brevo.contacts.by_id.values()}
    wanted = {f"tajo-{'r' if n % 10 == 3 else ''}{n}" for n in range(customers) if n % 7}
    reliability.add(
        "The sink killed while it tells Brevo",
        f"""
{len(said):,} commands of all four kinds, **{kills} SIGKILLs of the sink** at random moments, one in five of them while it
starts; meanwhile every 31st call to Brevo was reset after it took effect and every 47th answered with a 524.

{events.total():,} events, of which {len(doubts):,} were in doubt at some time, each read back and ended.
**{(events - there).total()} lost, {(there - events).total()} doubled, {len(wrong) + len(kept ^ wanted)} contacts wrong.**
""",
        ("kills", "events in doubt", "recovery, median s", "longest s"),
        [(kills, len(doubts), f"{statistics.median(ready_s):.1f}", f"{max(ready_s):.1f}")],
    )
    assert there == events
    assert kept == wanted
    assert not wrong
    assert not brevo.orphans
    assert doubts
    assert doubts <= ended
    assert not await nats_server.messages("DEAD")
    assert b"Traceback" not in errors
