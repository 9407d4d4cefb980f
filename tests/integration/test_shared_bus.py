"""The bus on a real broker: what is published is stored once, and what is stored is handed over at once."""

import asyncio
import dataclasses
import itertools
import time

import nats
import pytest
from nats.aio.msg import Msg

from shared import bus
from shared.bootstrap import bootstrap, consumer_config
from shared.bus import Publisher
from shared.message import MSG_ID, Message
from shared.publish import NotPublishedError
from shared.pull import WAIT_S
from shared.topology import BATCH_BYTES_MAX, BREVO_SINK, MAPPER


def messages(*ids: object) -> list[Message]:
    return [Message("twilio.AC1.01.taskrouter.task.created", b"{}", {MSG_ID: str(id_)}) for id_ in ids]


async def stored(url: str, stream: str = "TWILIO") -> int:
    connection = await nats.connect(url)
    try:
        return (await connection.jetstream().stream_info(stream)).state.messages
    finally:
        await connection.close()


@pytest.mark.parametrize("count", [1, 19, 20, 501])
async def test_each_message_is_stored_once_however_often_it_is_published(nats_server, count):
    broker = bus.connect(nats_server.url, service="test")
    await broker.connect()
    publisher = Publisher(broker)

    await publisher.publish(messages(*range(count)))
    await publisher.publish(messages(*range(count)))
    await publisher.publish(messages(*range(count // 2, count + 30)))

    assert await stored(nats_server.url) == count + 30
    await broker.stop()


async def test_the_same_id_twice_in_one_batch_is_stored_once(nats_server):
    broker = bus.connect(nats_server.url, service="test")
    await broker.connect()

    await Publisher(broker).publish(messages(*range(25), *range(25)))

    assert await stored(nats_server.url) == 25
    await broker.stop()


async def test_messages_of_two_streams_published_together_are_each_stored_in_their_own(nats_server):
    broker = bus.connect(nats_server.url, service="test")
    await broker.connect()
    letters = [Message("dead.test", b"", {MSG_ID: f"dead-{number}"}) for number in range(30)]
    mixed = [one for pair in zip(messages(*range(30)), letters, strict=True) for one in pair]

    await Publisher(broker).publish(mixed)

    assert (await stored(nats_server.url), await stored(nats_server.url, "DEAD")) == (30, 30)
    await broker.stop()


async def test_an_answer_that_is_none_of_a_stream_s_is_not_published(nats_server):
    broker = bus.connect(nats_server.url, service="test")
    await broker.connect()
    other = await nats.connect(nats_server.url)

    async def answer(message: Msg) -> None:
        await message.respond(b"what?")

    await other.subscribe("elsewhere", cb=answer)
    await other.flush()

    for publish in (Publisher(broker).publish, Publisher(broker).publish_few):
        with pytest.raises(NotPublishedError):
            await publish([Message("elsewhere", b"", {MSG_ID: "1"})])

    await other.close()
    await broker.stop()


async def test_publishing_without_a_broker_says_so_and_works_again_when_it_is_back(nats_server):
    broker = bus.connect(nats_server.url, service="test")
    await broker.connect()
    publisher = Publisher(broker)
    nats_server.kill()

    with pytest.raises(NotPublishedError):
        await publisher.publish(messages("a"))

    nats_server.start()
    deadline = time.monotonic() + 10
    while True:
        try:
            await publisher.publish(messages("a"))
            break
        except NotPublishedError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    assert await stored(nats_server.url) == 1
    await broker.stop()


async def test_a_subject_no_stream_holds_is_an_error_and_not_silence(nats_server):
    broker = bus.connect(nats_server.url, service="test")
    await broker.connect()

    with pytest.raises(NotPublishedError):
        await Publisher(broker).publish([Message("nobody.hears", b"", {MSG_ID: "1"})])
    with pytest.raises(NotPublishedError):
        await Publisher(broker).publish([Message("nobody.hears", b"", {MSG_ID: str(n)}) for n in range(30)])
    await broker.stop()


async def test_a_message_is_handed_over_at_once_and_a_backlog_in_batches(nats_server):
    """FastStream's own loop waits for a full batch or its timeout; ours must not (a private method, so held here)."""
    heard: list[tuple[float, int]] = []
    broker = bus.connect(nats_server.url, service="test")

    async def on_batch(batch) -> None:
        heard.append((time.monotonic(), len(batch)))
        for message in batch:
            await message.ack()

    bus.subscribe(broker, dataclasses.replace(MAPPER, batch=200), on_batch)
    await broker.connect()
    await Publisher(broker).publish(messages(*range(100)))
    await broker.start()
    await until(lambda: sum(count for _, count in heard) == 100)
    before = time.monotonic()
    await Publisher(broker).publish(messages("one more"))
    await until(lambda: sum(count for _, count in heard) == 101)

    assert heard[-1][0] - before < 0.5
    assert len(heard) < 20
    await broker.stop()


async def test_what_is_large_comes_in_batches_of_as_many_bytes_as_are_held_at_once(nats_server):
    heard: list[list[int]] = []
    broker = bus.connect(nats_server.url, service="test")

    async def on_batch(batch) -> None:
        heard.append([message.metadata.sequence.stream for message in batch])
        for message in batch:
            await message.ack()

    bus.subscribe(broker, MAPPER, on_batch)
    await broker.connect()
    half = BATCH_BYTES_MAX // 2
    large = [
        Message("twilio.AC1.01.taskrouter.task.created", bytes(size), {MSG_ID: str(number)})
        for number, size in enumerate((half, 5, half, 5, half, BATCH_BYTES_MAX - 100, 5, 5))
    ]
    for one in large:  # a batch of them would be more than the broker takes at once
        await Publisher(broker).publish([one])
    before = time.monotonic()
    await broker.start()
    await until(lambda: sum(map(len, heard)) == 8)

    assert heard == [[1, 2], [3, 4], [5], [6], [7, 8]]
    assert time.monotonic() - before < WAIT_S
    await broker.stop()


async def test_after_silence_each_message_is_handed_over_before_the_next_comes(nats_server):
    """nats-py's fetch held one back until the one behind it came, most of the time, once nothing had come for a while."""
    broker = bus.connect(nats_server.url, service="test")
    heard = hearing(broker)
    asked: list[Msg] = []

    async def on_request(message) -> None:
        asked.append(message)

    tap = await nats.connect(nats_server.url)
    await tap.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.TWILIO.{MAPPER.durable}", cb=on_request)
    await tap.flush()
    await broker.start()
    await until(lambda: len(asked) >= 4)  # what waits at the broker is the second request that does

    took = []
    for number in range(20):
        before = time.monotonic()
        await Publisher(broker).publish(messages(number))
        await until(lambda: len(heard) == number + 1)  # noqa: B023
        took.append(time.monotonic() - before)

    assert max(took) < 1, took
    await broker.stop()
    await tap.close()


@pytest.mark.parametrize("ahead", [False, True])
async def test_what_nobody_acks_keeps_no_heap_of_requests_open_and_then_comes_in_batches(nats_server, ahead):
    """At max_ack_pending the server answers a request with nothing, and keeps it."""
    heard: list[list[Msg]] = []
    connection = await nats.connect(nats_server.url)
    jetstream = connection.jetstream()
    few = dataclasses.replace(MAPPER, durable="few", batch=15, max_ack_pending=20, ack_wait_s=60, ahead=ahead)
    await jetstream.add_consumer("TWILIO", consumer_config(few))
    broker = bus.connect(nats_server.url, service="test")

    async def on_batch(batch) -> None:
        heard.append(batch)

    def handled() -> int:
        return sum(map(len, heard))

    bus.subscribe(broker, few, on_batch)
    await broker.start()
    await Publisher(broker).publish(messages(*range(100)))
    await until(lambda: handled() == 20)
    for one in range(8):  # each makes room for one, which is handed over by itself
        await list(itertools.chain(*heard))[one].ack()
        await until(lambda: handled() == 21 + one)  # noqa: B023
    info = await jetstream.consumer_info("TWILIO", "few")
    assert (info.num_waiting or 0) <= 3
    while handled() < 100:
        before = handled()
        for message in [message for message in itertools.chain(*heard) if not message.is_acked]:
            await message.ack()
        await until(lambda: handled() > before)  # noqa: B023

    assert max(map(len, heard)) <= 15
    assert len({message.metadata.sequence.stream for message in itertools.chain(*heard)}) == handled() == 100
    await broker.stop()
    await connection.close()


async def test_the_next_batch_comes_while_one_is_worked_on_and_a_stop_gives_it_back(nats_server):
    """Of three batches two are in hand; what nobody was handed is another's at once, and not after ack_wait."""
    connection = await nats.connect(nats_server.url)
    jetstream = connection.jetstream()
    slow = dataclasses.replace(MAPPER, durable="slow", batch=15, ack_wait_s=60)
    await jetstream.add_consumer("TWILIO", consumer_config(slow))
    begun, go_on = asyncio.Event(), asyncio.Event()
    first, second = (bus.connect(nats_server.url, service="test") for _ in range(2))
    heard: list[Msg] = []

    async def on_slow_batch(batch) -> None:
        begun.set()
        await go_on.wait()
        for message in batch:
            await message.ack()

    async def on_batch(batch) -> None:
        heard.extend(batch)
        for message in batch:
            await message.ack()

    subscriber = bus.subscribe(first, slow, on_slow_batch)
    await first.connect()
    await Publisher(first).publish(messages(*range(45)))
    await first.start()
    await begun.wait()
    while (await jetstream.consumer_info("TWILIO", "slow")).num_ack_pending != 30:  # noqa: ASYNC110 - the broker's
        await asyncio.sleep(0.005)
    go_on.set()
    await subscriber.stop()
    bus.subscribe(second, slow, on_batch)
    await second.start()
    await until(lambda: len(heard) == 30)

    assert sorted(message.metadata.sequence.stream for message in heard) == list(range(16, 46))
    await first.stop()
    await second.stop()
    await connection.close()


async def test_what_waits_is_handed_over_soon_after_the_broker_is_back(nats_server):
    broker = bus.connect(nats_server.url, service="test")
    heard = hearing(broker)
    await broker.start()
    await Publisher(broker).publish(messages("before"))
    await until(lambda: len(heard) == 1)
    nats_server.kill()
    nats_server.start()
    connection = await nats.connect(nats_server.url)
    waiting = await connection.jetstream().publish("twilio.AC1.01.taskrouter.task.created", b"{}")
    before = time.monotonic()
    # The ack of the first may have died with the broker: then that one comes again, in the same batch.
    await until(lambda: waiting.seq in {message.metadata.sequence.stream for message in heard})

    assert time.monotonic() - before < 3  # the request of before would have been waited for for 6
    await connection.close()
    await broker.stop()


def hearing(broker) -> list[Msg]:
    """What the mapper's durable hands over, acked, once the broker is started."""
    heard: list[Msg] = []

    async def on_batch(batch) -> None:
        heard.extend(batch)
        for message in batch:
            await message.ack()

    bus.subscribe(broker, dataclasses.replace(MAPPER, batch=200), on_batch)
    return heard


async def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_a_durable_from_before_is_as_one_of_now_from_the_next_bootstrap_on(nats_server):
    connection = await nats.connect(nats_server.url)
    jetstream = connection.jetstream()
    await jetstream.delete_consumer("BREVO", "brevo-sink")
    old = dataclasses.replace(BREVO_SINK, filter_subject="", max_ack_pending=BREVO_SINK.max_ack_pending // 2)
    await jetstream.add_consumer("BREVO", consumer_config(old))
    before = (await jetstream.consumer_info("BREVO", "brevo-sink")).config.filter_subject

    await bootstrap(nats_server.url)
    for shard in ("17", "past.17"):
        await jetstream.publish(f"brevo.{shard}.event.track", b"{}")

    info = await jetstream.consumer_info("BREVO", "brevo-sink")
    past = await jetstream.consumer_info("BREVO", "brevo-sink-past")
    assert not before
    assert (info.num_pending, past.num_pending) == (1, 1)
    assert info.config.max_ack_pending == BREVO_SINK.max_ack_pending
    await connection.close()
