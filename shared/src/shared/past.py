"""Reading what a stream holds already, in order, to rebuild what was made of it.  Settles nothing, moves no durable."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from datetime import datetime

import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from shared import bus
from shared.topology import BATCH_BYTES_MAX, Consumer

SILENCE_S = 5.0  # after which we subscribe anew; a broker on this machine gives 2,000 within 0.1 s
AGAIN_S = 0.5  # after the broker went away
IDLE_S = 30.0  # after which the broker forgets our reader

log = structlog.get_logger()


async def acked(broker: NatsBroker, consumer: Consumer) -> int:
    """The stream sequence up to which a durable has acked everything: that will not come again.  Waits for the durable."""

    async def ask(connection: Client) -> int:
        info = await connection.jetstream(timeout=1).consumer_info(consumer.stream, consumer.durable)
        return info.ack_floor.stream_seq if info.ack_floor else 0

    return await _answered(broker, ask)


async def ends(broker: NatsBroker, stream: str) -> int:
    """The sequence a stream ends with.  Waits for the broker."""
    return await _answered(broker, lambda connection: last_sequence(connection, stream))


async def _answered(broker: NatsBroker, ask: Callable[[Client], Awaitable[int]]) -> int:
    """What the broker says, however long it says nothing."""
    while True:
        connection = bus.client(broker)
        if connection is not None:
            try:
                return await ask(connection)
            except (nats.errors.Error, nats.js.errors.Error) as error:
                log.debug("not_answered_yet", error=type(error).__name__)
        await asyncio.sleep(AGAIN_S)


async def past(
    broker: NatsBroker,
    stream: str,
    *,
    after: int,
    to: int,
    since: datetime | None = None,
    headers_only: bool = False,
    subjects: Sequence[str] = (),
    batch: int = 2000,
) -> AsyncIterator[list[Msg]]:
    """The messages with after < sequence <= to that are still there, in order, in batches.

    With `subjects`, only those they fit.  With `since`, begins at the first of them that was stored then or later.
    Goes on where it was when the broker is back.  What has left the stream, by age or because somebody was
    forgotten, is passed over.
    """
    while after < to:
        connection = bus.client(broker)
        try:
            if connection is not None:
                async for messages in read(
                    connection,
                    stream,
                    after=after,
                    to=to,
                    since=since,
                    headers_only=headers_only,
                    subjects=subjects,
                    batch=batch,
                ):
                    yield messages
                    after, since = _sequence(messages[-1]), None
                return
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            log.warning("reading_again", stream=stream, after=after, error=type(error).__name__)
        await asyncio.sleep(AGAIN_S)


async def read(
    connection: Client,
    stream: str,
    *,
    after: int,
    to: int,
    since: datetime | None = None,
    headers_only: bool = False,
    subjects: Sequence[str] = (),
    batch: int = 2000,
) -> AsyncGenerator[list[Msg], None]:
    """As `past`, once.  Raises nats' errors, OSError and TimeoutError where the broker goes away."""
    if after >= to:
        return
    where = _from(stream, after, since, headers_only, subjects)
    async with aclosing(_read(connection, where, batch)) as batches:
        async for messages in batches:
            wanted = messages
            if _sequence(messages[0]) <= after or _sequence(messages[-1]) > to:
                wanted = [message for message in messages if after < _sequence(message) <= to]
            if wanted:
                yield wanted
            if len(wanted) < len(messages):
                return


def _sequence(message: Msg) -> int:
    return message.metadata.sequence.stream


def _from(
    stream: str, after: int, since: datetime | None, headers_only: bool, subjects: Sequence[str]
) -> tuple[str, ConsumerConfig]:
    start = (
        ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=since)
        if since
        else ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1)
    )
    start.inactive_threshold, start.headers_only = IDLE_S, headers_only
    start.filter_subjects = list(subjects) or None
    return stream, start


async def _read(
    connection: Client, where: tuple[str, ConsumerConfig], batch: int
) -> AsyncGenerator[list[Msg], None]:
    """Until the end of the stream as it is then.  Raises TimeoutError when nothing comes.

    A batch ends with the message that fills it: `batch` messages, or BATCH_BYTES_MAX.

    An ordered push consumer with a callback: a fetch costs nats-py twice as much for each message.  The server
    sends at most its flow control window (32 MiB) ahead of us.
    """
    arrived: list[Msg] = []
    wanted, size = batch, 0
    enough, room = asyncio.Event(), asyncio.Event()

    async def on_message(message: Msg) -> None:
        nonlocal size
        arrived.append(message)
        size += len(message.data)
        if len(arrived) >= wanted or size >= BATCH_BYTES_MAX:
            room.clear()
            enough.set()
            await room.wait()

    subscription = await connection.jetstream().subscribe(
        "",
        stream=where[0],
        cb=on_message,
        ordered_consumer=True,
        config=where[1],
    )
    try:
        info = await subscription.consumer_info()
        left = (info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)
        while left:
            wanted = min(batch, left)
            if len(arrived) < wanted and not enough.is_set():
                async with asyncio.timeout(SILENCE_S):
                    await enough.wait()
            messages, arrived[:], size = list(arrived), [], 0
            enough.clear()
            room.set()
            left = messages[-1].metadata.num_pending
            yield messages
    finally:
        room.set()
        with suppress(nats.errors.Error):  # where the connection is closed or closing, it goes with it
            await subscription.unsubscribe()


async def last_sequence(connection: Client, stream: str) -> int:
    """The sequence a stream ends with.  Raises nats' errors."""
    return (await connection.jetstream(timeout=1).stream_info(stream)).state.last_seq
