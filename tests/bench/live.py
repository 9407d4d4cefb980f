"""The mapper on what comes in: a log is there, the mapper hears it, book and outbox on disk, and says what follows.

Held against nats-py alone, which hears the same log from a durable of its own, and publishes as many messages of the same size;
and against the mapper's own reader of batches and headers, which is faster than nats-py's, doing the same.
"""

import asyncio
import random
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import nats
import uvloop
from nats.js.api import AckPolicy, ConsumerConfig

from shared import bus
from shared.message import MSG_ID, Message
from shared.publish import publish
from shared.pull import Pull
from shared.topology import BREVO, MAPPER
from tests.bench import history, machine
from tests.bench.figures import Figure, Found, memory

LOOK_S = 0.05
BATCH = MAPPER.batch


class Heard(msgspec.Struct):
    """What it took to hear a log."""

    events: int
    said: int
    said_bytes: int
    seconds: float
    cpu_s: float
    peak_mb: float

    @property
    def per_s(self) -> float:
        return self.events / self.seconds


def mapped(url: str, events: int, folder: Path) -> Heard:
    """Start a mapper beside a log that nobody has heard, and wait until it has said all that follows."""

    async def waited() -> tuple[float, float, int, int]:
        connection = await nats.connect(url)
        jetstream = connection.jetstream()
        began = cpu_s = 0.0
        try:
            while True:
                mapper.alive()
                info = await jetstream.consumer_info(MAPPER.stream, MAPPER.durable)
                if not began and info.ack_floor and info.ack_floor.stream_seq:
                    began, cpu_s, first = time.monotonic(), mapper.cpu_s, info.ack_floor.stream_seq
                if not info.num_pending and not info.num_ack_pending:
                    state = (await jetstream.stream_info(BREVO.name)).state
                    took, used = time.monotonic() - began, mapper.cpu_s - cpu_s
                    part = events / (events - first)  # what it had heard when we looked first
                    return took * part, used * part, state.messages, state.bytes
                await asyncio.sleep(LOOK_S)
        finally:
            await connection.close()

    with machine.Service("mapper", folder, url) as mapper:
        seconds, cpu_s, said, said_bytes = asyncio.run(waited())
        return Heard(events, said, said_bytes, seconds, cpu_s, mapper.peak_mb)


async def _raw(url: str, heard: Heard, *, ours: bool) -> tuple[float, float]:
    broker = bus.connect(url, service="bench")
    connection = await (broker.connect() if ours else nats.connect(url))
    jetstream = connection.jetstream()
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=MAPPER.max_ack_pending)
    fetched = await jetstream.pull_subscribe("", "bare", stream=MAPPER.stream, config=config)
    pull = Pull(connection, replace(MAPPER, durable="bare"))
    await pull.begin()
    body, per = b"x" * (heard.said_bytes // max(heard.said, 1)), heard.said / heard.events
    left, told = heard.events, 0
    began, cpu_s = time.monotonic(), time.process_time()
    while left:
        messages = await (pull.messages() if ours else fetched.fetch(BATCH, timeout=5))
        left -= len(messages)
        until = round((heard.events - left) * per)
        await publish(
            connection,
            [Message("brevo.00.bare", body, {MSG_ID: f"{ours}{number}"}) for number in range(told, until)],
        )
        told = until
        for message in messages:
            await message.ack()
    took = time.monotonic() - began, time.process_time() - cpu_s
    await jetstream.delete_consumer(MAPPER.stream, "bare")
    await (broker.stop() if ours else connection.close())
    return took


def raw(url: str, heard: Heard, *, ours: bool) -> tuple[float, float]:
    """Seconds of wall time and of CPU for as much without us: with nats-py's reader, or with the one the mapper has."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_raw(url, heard, ours=ours))


def measure(*, quick: bool) -> Found:
    """Two figures."""
    events = 3_000 if quick else 100_000
    with machine.folder() as folder, machine.broker(folder) as broker:
        asyncio.run(history.store(broker.url, history.events(events, events // 10, random.Random(1))))
        before_s = broker.cpu_s
        one = mapped(broker.url, events, folder / "data")
        broker_cpu_us = (broker.cpu_s - before_s) / events * 1e6
        raw_s, raw_cpu_s = raw(broker.url, one, ours=False)
        reader_s, reader_cpu_s = raw(broker.url, one, ours=True)
    figures = [
        Figure(
            what="mapper, live, book and outbox on disk",
            found=f"{one.per_s:,.0f} raw events/s, {one.cpu_s / events * 1e6:.0f} µs of CPU each",
            target="≥ 5,000/s",
            ceiling=(
                f"nats-py, consume and publish: {events / raw_s:,.0f}/s, {raw_cpu_s / events * 1e6:.0f} µs of CPU; with the mapper's"
                f" reader in place of its own: {events / reader_s:,.0f}/s, {reader_cpu_s / events * 1e6:.0f} µs"
            ),
            ratio=raw_s
            / one.seconds,  # of the rates, as everywhere: waiting for the broker is a part of both
            least=0.5,
            met=one.per_s >= 5000,
        ),
        memory("mapper", one.peak_mb),
    ]
    numbers = {
        "mapper.per_s": one.per_s,
        "mapper.cpu_us": one.cpu_s / events * 1e6,
        "mapper.broker_cpu_us": broker_cpu_us,
        "mapper.ratio": raw_s / one.seconds,
        "mapper.reader_ratio": reader_s / one.seconds,
        "mapper.cpu_ratio": raw_cpu_s / one.cpu_s,
        "mapper.peak_mb": one.peak_mb,
    }
    return Found(figures=figures, numbers=numbers)
