"""Reading what a stream holds already, in order, to rebuild what was made of it.  Settles nothing, moves no durable."""

import asyncio
from collections.abc import AsyncIterator

import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from shared import bus
from shared.topology import Consumer

FETCH_S = 2.0  # for one batch; a broker on this machine gives 500 within 20 ms
AGAIN_S = 0.5  # after the broker went away
IDLE_S = 30.0  # after which the broker forgets our reader

log = structlog.get_logger()


async def acked(broker: NatsBroker, consumer: Consumer) -> int:
    """The stream sequence up to which a durable has acked everything: that will not come again.  Waits for the durable."""
    while True:
        connection = bus.client(broker)
        if connection is not None:
            try:
                info = await connection.jetstream(timeout=1).consumer_info(consumer.stream, consumer.durable)
            except (nats.errors.Error, nats.js.errors.Error) as error:
                log.debug("no_consumer_yet", durable=consumer.durable, error=type(error).__name__)
            else:
                return info.ack_floor.stream_seq if info.ack_floor else 0
        await asyncio.sleep(AGAIN_S)


async def past(
    broker: NatsBroker, stream: str, *, after: int, to: int, batch: int = 500
) -> AsyncIterator[list[Msg]]:
    """The messages with after < sequence <= to, in order, in batches; goes on where it was when the broker is back."""
    while after < to:
        connection = bus.client(broker)
        try:
            if connection is not None:
                async for messages in _read(connection, stream, after, batch):
                    wanted = [message for message in messages if message.metadata.sequence.stream <= to]
                    if wanted:
                        yield wanted
                        after = wanted[-1].metadata.sequence.stream
                    if after >= to or len(wanted) < len(messages):
                        return
        except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
            log.warning("reading_again", stream=stream, after=after, error=type(error).__name__)
        await asyncio.sleep(AGAIN_S)


async def _read(connection: Client, stream: str, after: int, batch: int) -> AsyncIterator[list[Msg]]:
    subscription = await connection.jetstream().pull_subscribe(
        "",
        stream=stream,
        config=ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1,
            ack_policy=AckPolicy.NONE, inactive_threshold=IDLE_S, mem_storage=True,
        ),
    )  # fmt: skip
    try:
        while True:
            yield await subscription.fetch(batch, timeout=FETCH_S)
    finally:
        await subscription.unsubscribe()
