"""A backlog behind Brevo's own limits: all of what is ours is used, next to nothing is refused."""

import asyncio
import re
import time
from collections import Counter

import httpx
import msgspec
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.limits import Limits
from shared.command import ContactUpsert, EventTrack
from shared.topology import BREVO_SINK

LIMITS = Limits().scaled(100)  # 10 calls a second; the hours of "all others" are those of a hundred
OURS = 0.7  # the sink's default fraction
CONTACTS = 0.07  # of the commands: the more calls a backlog needs, the longer it takes
VERSIONS = 2  # of each contact, of which the second is told
LONG = 20_000  # commands, of make fault
FIRST_WINDOW_MS = 1000
BATCH_MAX = 200


def backlog(commands: int) -> list[ContactUpsert | EventTrack]:
    """So many commands: contacts in two versions, and their events."""
    contacts = int(commands * CONTACTS)
    said: list[ContactUpsert | EventTrack] = []
    for version in range(1, VERSIONS + 1):
        said += [
            ContactUpsert(
                id=f"tajo-{n}/{version}/m/0", ext_id=f"tajo-{n}", version=version, mapping="m",
                email=f"{n}@example.com", attributes={"AVG_WAIT_TIME": version},
            )
            for n in range(contacts)
        ]  # fmt: skip
    said += [
        EventTrack(id=f"WT{n}/task.created", ext_id=f"tajo-{n % contacts}", name="X", time="2026-11-20T10:00:00.000Z")
        for n in range(commands - len(said))
    ]  # fmt: skip
    return said


def used(moments_ms: list[int], per_s: float) -> float:
    """Of the calls allowed from the first of these to the last, the part that was made."""
    return (len(moments_ms) - 1) / ((moments_ms[-1] - moments_ms[0]) / 1000 * per_s)


@pytest.mark.timeout(1200)  # of `make fault`; here it is half a minute
async def test_a_backlog_uses_what_is_ours_of_brevos_limits_and_is_hardly_ever_refused(
    nats_server, service, reliability, pytestconfig
):
    commands = backlog(pytestconfig.getoption("--backlog"))
    upserts = [one for one in commands if isinstance(one, ContactUpsert)]
    events = [one for one in commands if isinstance(one, EventTrack)]
    brevo = BrevoSandbox(limits=LIMITS)
    async with serving(brevo) as url:
        sink = service(
            "brevo-sink",
            TAJO_NATS_URL=nats_server.url,
            BREVO_API_KEY=brevo.api_key,
            TAJO_BREVO_URL=f"{url}/v3",
        )
        await nats_server.say(*commands)
        began = time.monotonic()
        await asyncio.to_thread(sink.start, ready=True)
        await nats_server.all_acked(BREVO_SINK, 900)
        drained_s = time.monotonic() - began
        before = len(brevo.requests)
        more = [msgspec.structs.replace(one, id=f"{one.id}/more") for one in events]
        await nats_server.say(*more)
        began = time.monotonic()
        await nats_server.all_acked(BREVO_SINK, 900)
        more_s = time.monotonic() - began
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"{sink.url}/metrics")).text

    later = [
        one for one in brevo.requests if one.received_ms >= brevo.requests[0].received_ms + FIRST_WINDOW_MS
    ]
    refused = sum(one.status == 429 for one in later)
    told = [one.received_ms for one in brevo.requests if one.route == "/contacts"]
    batches = [one.received_ms for one in list(brevo.requests)[:before] if one.route == "/events/batch"]
    alone = [one.received_ms for one in list(brevo.requests)[before:] if one.route == "/events/batch"]
    shares = used(told, 10 * OURS), used(alone, 10 * OURS)
    per_1000 = re.search(r"^tajo_brevo_sink_calls_per_1000_commands (.+)$", metrics, re.MULTILINE)
    reliability.add(
        "A backlog behind Brevo's limits",
        f"""
{len(commands):,} commands waited when the sink started: {len(upserts):,} upserts of {len(upserts) // VERSIONS:,} contacts and
{len(events):,} events; then {len(more):,} more events.  Brevo allows 10 calls a second and 36,000 an hour (the hours a
hundredfold, so that this need not take one), of which the sink's fraction of {OURS} is ours: 7 a second for contacts, as many for
events.  **Used** is the part of the allowed calls that were made, from the first to the last, in the bucket that the backlog waits
for.

**{refused} of {len(later):,} calls were refused with a 429 after the first second.**  {float(per_1000[1]):.0f} calls for each 1,000
commands.
""",
        ("backlog", "drained, s", "calls for contacts", "calls for events", "used"),
        [
            ("contacts and events", f"{drained_s:.0f}", len(told), len(batches), f"{shares[0]:.1%}"),
            ("events alone", f"{more_s:.0f}", 0, len(alone), f"{shares[1]:.1%}"),
        ],
    )
    there = Counter(one.properties["idempotency_key"] for one in brevo.events)
    # As long as the other tests run beside, a wake-up comes late; make fault has the machine for itself.
    assert shares[0] >= (0.95 if len(commands) >= LONG else 0.8)
    assert refused <= 0.01 * len(later)
    assert len(alone) <= 1.2 * len(more) / BATCH_MAX + 3  # full, but for the first and the last
    assert there == Counter(one.id for one in (*events, *more))
    assert {contact.attributes["AVG_WAIT_TIME"] for contact in brevo.contacts.by_id.values()} == {VERSIONS}
    assert len(brevo.contacts.by_id) == len(upserts) // VERSIONS
    assert not brevo.orphans
    assert not await nats_server.messages("DEAD")
