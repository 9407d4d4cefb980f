"""Two processes of one service on one broker: one works, the other takes over, and nothing is said twice."""

import asyncio
import signal
import time
from pathlib import Path

import httpx
import nats
import pytest

from mapper.story import given
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import Limits
from shared import bus, command, event
from shared.bus import Publisher
from shared.command import ContactUpsert, EventTrack
from shared.message import MSG_ID, Message
from shared.trace import start

STORY = Path(__file__).parent.parent / "golden/voice_handled/given.ndjson"
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
CONTACTS, EACH = 150, 6


def commands() -> list[Message]:
    """Contacts, and events of each."""
    made: list[Message] = []
    for n in range(CONTACTS):
        who = f"c{n}"
        upsert = ContactUpsert(id=f"{who}/1", ext_id=who, version=1, mapping="m", email=f"{who}@example.com")
        tracks = (
            EventTrack(id=f"{who}/WT{k}", ext_id=who, name="X", time="2026-11-20T10:00:00.000Z")
            for k in range(EACH)
        )
        made += [command.to_message(one, start()) for one in (upsert, *tracks)]
    return made


async def say(url: str, messages: list[Message], *, seconds: float = 0) -> None:
    """Publish, spread over so long."""
    broker = bus.connect(url, service="test")
    await broker.connect()
    for at in range(0, len(messages), 10):
        await Publisher(broker).publish(messages[at : at + 10])
        await asyncio.sleep(seconds * 10 / len(messages))
    await broker.stop()


async def until(condition, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def all_acked(url: str, stream: str, durable: str, seconds: float = 60) -> None:
    connection = await nats.connect(url)
    deadline = time.monotonic() + seconds
    try:
        while True:
            info = await connection.jetstream().consumer_info(stream, durable)
            if info.num_pending == 0 and info.num_ack_pending == 0:
                return
            assert time.monotonic() < deadline, info
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def is_(service, word: str, seconds: float = 30) -> None:
    """Return once the service says that it is `ready`, or `standby`."""
    deadline = time.monotonic() + seconds
    async with httpx.AsyncClient(timeout=3) as client:
        while True:
            try:
                answer = await client.get(f"{service.url}/health/ready")
                if answer.status_code == 200 and answer.text.strip() == word:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, word
            await asyncio.sleep(0.02)


def keys(brevo) -> list[str]:
    return [one.properties["idempotency_key"] for one in brevo.events]


def posts(brevo) -> int:
    return sum(request.method == "POST" for request in brevo.requests)


@pytest.fixture
async def brevo():
    sandbox = BrevoSandbox(limits=FAST)
    async with serving(sandbox) as url:
        sandbox.url = f"{url}/v3"
        yield sandbox


@pytest.fixture
async def sinks(nats_server, service, brevo, tmp_path):
    """Two, each with a data directory of its own; the first works."""
    two = [
        service(
            "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key,
            TAJO_BREVO_URL=brevo.url, TAJO_BREVO_LOOK_S="0.3", TAJO_BREVO_RATE_FRACTION="1",
            TAJO_DATA_DIR=str(tmp_path / name),
        )
        for name in ("first", "second")
    ]  # fmt: skip
    await asyncio.to_thread(two[0].start, ready=True)
    two[1].start()
    await is_(two[1], "standby")
    return two


def each_once(brevo) -> bool:
    return sorted(keys(brevo)) == sorted(f"c{n}/WT{k}" for n in range(CONTACTS) for k in range(EACH))


async def test_a_killed_sink_is_followed_within_15_seconds_and_each_event_is_there_once(
    nats_server, sinks, brevo
):
    first, _ = sinks
    brevo.faults.append(Fault("latency", seconds=0.05, times=None))
    saying = asyncio.create_task(say(nats_server.url, commands(), seconds=25))

    await until(lambda: len(brevo.events) > 100)
    await asyncio.to_thread(first.end, signal.SIGKILL)
    killed, before = time.monotonic(), posts(brevo)
    await until(lambda: posts(brevo) > before)
    took_over_s = time.monotonic() - killed
    await saying
    await all_acked(nats_server.url, "BREVO", "brevo-sink")

    assert 2 < took_over_s < 15
    assert each_once(brevo)
    assert not brevo.orphans


async def test_a_sink_that_stood_still_does_nothing_once_another_works(nats_server, sinks, brevo):
    first, second = sinks
    brevo.faults.append(Fault("latency", seconds=0.1, times=None))
    await say(nats_server.url, commands())
    await until(lambda: len(brevo.events) > 100)

    first.process.send_signal(signal.SIGSTOP)  # with most of it in hand, and calls under way
    await is_(second, "ready")
    await until(lambda: len(brevo.events) > 300)
    first.process.send_signal(signal.SIGCONT)
    said = (await asyncio.to_thread(first.ended)).decode()
    await all_acked(nats_server.url, "BREVO", "brevo-sink")

    assert said.count("lease_lost") == 1
    assert each_once(brevo)
    assert not brevo.orphans


async def test_a_sink_that_stood_still_with_all_in_hand_calls_nobody_any_more(nats_server, sinks, brevo):
    first, second = sinks
    brevo.faults.append(Fault("status", status=429, path="/v3/contacts", method="POST", times=None))
    await say(nats_server.url, commands())
    await until(lambda: posts(brevo) > 3)

    first.process.send_signal(signal.SIGSTOP)
    await is_(second, "ready")
    await asyncio.to_thread(second.end, signal.SIGKILL)  # so that whatever calls is the first
    before = posts(brevo)
    brevo.faults.clear()
    first.process.send_signal(signal.SIGCONT)
    await asyncio.to_thread(first.ended)

    assert posts(brevo) == before
    assert not brevo.events


async def test_an_orderly_stop_hands_over_within_2_seconds(nats_server, sinks, brevo):
    first, _ = sinks
    brevo.faults.append(Fault("latency", seconds=0.3, times=None))
    await say(nats_server.url, commands())
    await until(lambda: len(brevo.events) > 100)

    await asyncio.to_thread(first.end)
    ended, before = time.monotonic(), posts(brevo)
    await until(lambda: posts(brevo) > before)
    handed_over_s = time.monotonic() - ended
    await all_acked(nats_server.url, "BREVO", "brevo-sink")

    assert handed_over_s < 2
    assert each_once(brevo)


async def test_a_killed_sink_that_starts_again_works_at_once_though_another_stands_by(sinks):
    first, second = sinks
    await asyncio.to_thread(first.end, signal.SIGKILL)

    began = time.monotonic()
    first.start()
    await is_(first, "ready")

    assert time.monotonic() - began < 8  # less than a lease
    await is_(second, "standby")


async def test_of_two_mappers_one_works_and_the_other_follows_it(nats_server, service, tmp_path):
    first, second = (
        service("mapper", TAJO_NATS_URL=nats_server.url, TAJO_DATA_DIR=str(tmp_path / name))
        for name in ("first", "second")
    )
    await asyncio.to_thread(first.start, ready=True)
    second.start()
    await is_(second, "standby")
    call = [event.to_message(one, start()) for one in given(STORY.read_bytes())]

    await say(nats_server.url, call)
    await all_acked(nats_server.url, "TWILIO", "mapper")
    folded = [await sequence(one) for one in (first, second)]
    await asyncio.to_thread(first.end)
    await is_(second, "ready", 2)
    again = [
        Message(one.subject, one.body, {**one.headers, MSG_ID: f"2-{one.headers[MSG_ID]}"}) for one in call
    ]
    await say(nats_server.url, again)
    await all_acked(nats_server.url, "TWILIO", "mapper")

    assert folded == [len(call), 0]
    assert await sequence(second) == 2 * len(call)


async def sequence(mapper) -> int:
    """How far a mapper has come."""
    async with httpx.AsyncClient(follow_redirects=True) as client:
        text = (await client.get(f"{mapper.url}/metrics")).text
    return int(float(text.partition("\ntajo_mapper_sequence ")[2].split()[0]))
