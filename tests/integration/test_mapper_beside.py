"""The log read in a process beside: what it hands over is what this one would have read, whatever becomes of it."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from mapper.beside import Errand, read_beside
from mapper.readout import read_out
from mapper.step import Policy
from mapper.story import given
from shared import bus, log
from shared.bus import Publisher
from shared.connector_file import load
from shared.event import to_message
from shared.login import Login
from shared.past import past
from shared.tombstone import Tombstones
from shared.trace import start

ROOT = Path(__file__).parents[2]
STORIES = ("voice_handled", "voice_abandoned")
TIMES = 300


def many():
    """Some thousand raw events, each of a task of its own time."""
    for number in range(TIMES):
        for story in STORIES:
            for event in given((ROOT / "tests/golden" / story / "given.ndjson").read_bytes()):
                one = msgspec.structs.replace(
                    event, id=f"{event.id}{number}", time_ms=event.time_ms + number * 60_000
                )
                yield to_message(one, start())


@pytest.fixture
async def logged(nats_server):
    broker = bus.connect(nats_server.url, service="test", login=Login())
    await broker.connect()
    messages = list(many())
    for begin in range(0, len(messages), 500):
        await Publisher(broker).publish(messages[begin : begin + 500])
    yield broker, len(messages)
    await broker.stop()


@pytest.fixture
def config():
    return load(ROOT / "config/tajo.yaml")


async def test_it_hands_over_what_the_log_says_also_where_it_or_the_broker_is_killed(
    nats_server, logged, config
):
    log.set_up("test", level="error")
    broker, count = logged
    here = [
        read_out(messages, Policy.of(config).reading, Tombstones())
        async for messages in past(broker, "TWILIO", after=0, to=count)
    ]
    there = []
    async with aclosing(read_beside(nats_server.url, config, after=0, to=count)) as batches:
        async for batch in batches:
            there.append(batch)
            if len(there) == 1:
                nats_server.kill()
                (child,) = children()
                os.kill(child, signal.SIGKILL)
                nats_server.start()

    assert len(there) > 1
    assert [event for batch in there for event in batch.events] == [
        event for batch in here for event in batch.events
    ]
    assert there[-1].sequence == here[-1].sequence == count
    assert sum(batch.customers for batch in there) == sum(batch.customers for batch in here) > 0
    assert not children()


async def test_it_ends_with_the_mapper_though_nobody_reads_what_it_read(nats_server, logged, config):
    errand = Errand(nats_server.url, config, 0, logged[1])

    assert await asyncio.to_thread(begun_and_left, msgspec.json.encode(errand)) == os.EX_UNAVAILABLE


def begun_and_left(errand: bytes) -> int:
    """How it ends when its standard input does, while it has more to say than a pipe holds."""
    command = [sys.executable, "-m", "mapper.beside"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(errand + b"\n")
        process.stdin.flush()
        process.stdout.read(1)
        process.stdin.close()
        return process.wait(20)


def children() -> list[int]:
    """Our processes that read beside."""
    of_ours = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in of_ours if b"mapper.beside" in Path(f"/proc/{pid}/cmdline").read_bytes()]
