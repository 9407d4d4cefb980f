"""Heartbeats on a real broker: they go on whatever happens, and end with the process."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from nats.js.errors import KeyNotFoundError

from shared import bus
from shared.heartbeat import IngestCounts, from_value, key
from shared.lease import Lease
from shared.pulse import Pulse
from shared.topology import STATUS


@pytest.fixture
async def broker(nats_server):
    broker = bus.connect(nats_server.url, service="test")
    await broker.connect()
    yield broker
    await broker.stop()


@asynccontextmanager
async def beating(broker, *, counts=IngestCounts, lease=None):
    async def state():
        return "working", ""

    pulse = Pulse(broker, "ingest", state=state, note=str, counts=counts, lease=lease)
    task = asyncio.create_task(pulse.beat())
    yield pulse
    task.cancel()


async def keys(broker) -> set[str]:
    """Of the heartbeats that stand in the bucket."""
    info = await bus.client(broker).jetstream().stream_info(f"KV_{STATUS.name}", subjects_filter=">")
    bucket = await bus.client(broker).jetstream().key_value(STATUS.name)
    found = set()
    for subject in info.state.subjects or ():
        name = subject.removeprefix(f"$KV.{STATUS.name}.")
        with suppress(KeyNotFoundError):  # it was taken back
            found.add(from_value((await bucket.get(name)).value).instance)
    return found


async def until(broker, condition) -> set[str]:
    async with asyncio.timeout(60):
        while not condition(found := await keys(broker)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return found


async def test_counting_that_raises_ends_nothing_and_the_next_heartbeat_is_said(broker):
    tries = []

    def counts() -> IngestCounts:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("a bug")
        return IngestCounts()

    async with beating(broker, counts=counts):
        assert len(await until(broker, len)) == 1

    assert len(tries) > 1


async def test_it_is_said_again_once_a_broker_that_was_away_is_back(nats_server, broker):
    async with beating(broker):
        await until(broker, len)
        bucket = await bus.client(broker).jetstream().key_value(STATUS.name)
        nats_server.stop()
        async with asyncio.timeout(60):
            while bus.client(broker):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        nats_server.start()
        async with asyncio.timeout(60):
            while not bus.client(broker):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        await bucket.purge(key("ingest", next(iter(await keys(broker)))))
        assert len(await until(broker, len)) == 1


async def test_once_the_lease_names_it_the_process_has_one_name_and_an_orderly_end_removes_it(
    broker, tmp_path
):
    lease = Lease(broker, "ingest", tmp_path)
    async with beating(broker, lease=lease) as pulse:
        before = await until(broker, len)
        await lease.lock()
        after = await until(broker, lambda found: found != before and len(found) == 1)
    await pulse.end()

    assert after == {lease.instance}
    assert await keys(broker) == set()


def test_a_machine_may_be_called_what_a_key_may_not():
    assert key("ingest", "a.b c:ü-1") == "ingest.a-b-c--1"
