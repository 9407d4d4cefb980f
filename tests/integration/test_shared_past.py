"""Reading a stream's past, of a real broker."""

import pytest
from nats.js.api import StreamConfig

from shared import bus
from shared.past import past
from shared.topology import BATCH_BYTES_MAX


@pytest.fixture
async def broker(nats_server):
    broker = bus.connect(nats_server.url, service="test")
    await broker.connect()
    yield broker
    await broker.stop()


async def fill(broker, count: int):
    stream = bus.client(broker).jetstream()
    await stream.add_stream(StreamConfig(name="PAST", subjects=["past"]))
    for number in range(count):
        await stream.publish("past", str(number).encode())
    return stream


async def sequences(broker, **bounds) -> list[list[int]]:
    return [
        [message.metadata.sequence.stream for message in batch]
        async for batch in past(broker, "PAST", **bounds)
    ]


async def test_the_past_comes_in_order_in_full_batches_and_ends_where_it_is_told(broker):
    await fill(broker, 10)

    assert await sequences(broker, after=0, to=10, batch=4) == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert await sequences(broker, after=3, to=6, batch=4) == [[4, 5, 6]]


async def test_what_is_large_comes_in_batches_of_as_many_bytes_as_are_held_at_once(broker):
    stream = bus.client(broker).jetstream()
    await stream.add_stream(StreamConfig(name="PAST", subjects=["past"]))
    half = BATCH_BYTES_MAX // 2
    for size in (half, half, 5, half, 5, half, 5):
        await stream.publish("past", bytes(size))

    assert await sequences(broker, after=0, to=7) == [[1, 2], [3, 4, 5, 6], [7]]


async def test_what_has_left_the_stream_is_passed_over(broker):
    stream = await fill(broker, 5)
    for number in (3, 5):
        await stream.delete_msg("PAST", number)

    assert await sequences(broker, after=0, to=5, batch=2) == [[1, 2], [4]]


async def test_a_past_that_is_gone_is_none(broker):
    stream = await fill(broker, 3)
    await stream.purge_stream("PAST")

    assert await sequences(broker, after=0, to=3) == []
    await stream.publish("past", b"new")
    assert await sequences(broker, after=0, to=3) == []
