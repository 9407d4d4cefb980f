"""Make the broker be as topology.py says: create what is missing, update what differs, delete nothing."""

from typing import Annotated, Literal

import nats
import nats.js.errors
from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    KeyValueConfig,
    ObjectStoreConfig,
    StorageType,
    StoreCompression,
    StreamConfig,
)

from shared.login import NOBODY, Login
from shared.settings import env
from shared.topology import BUCKETS, CONSUMERS, OBJECT_STORES, STREAMS, Bucket, Consumer, Stream


def stream_config(stream: Stream, replicas: int = 1) -> StreamConfig:
    """Our words in JetStream's."""
    return StreamConfig(
        name=stream.name,
        description=stream.holds,
        subjects=list(stream.subjects),
        storage=StorageType.FILE,
        compression=StoreCompression.S2,
        max_age=stream.max_age_s,
        max_bytes=stream.max_bytes,
        discard=DiscardPolicy.NEW if stream.discard_new else DiscardPolicy.OLD,
        duplicate_window=stream.duplicate_window_s,
        allow_atomic=True,
        allow_direct=True,
        num_replicas=replicas,
    )


def consumer_config(consumer: Consumer) -> ConsumerConfig:
    """Our words in JetStream's.  Redelivery has no limit: a message ends in a verdict, not in a count."""
    return ConsumerConfig(
        durable_name=consumer.durable,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=consumer.ack_wait_s,
        max_ack_pending=consumer.max_ack_pending,
        max_deliver=-1,
        filter_subject=consumer.filter_subject or None,
    )


def bucket_config(bucket: Bucket, replicas: int = 1) -> KeyValueConfig:
    """Our words in JetStream's."""
    return KeyValueConfig(
        bucket=bucket.name,
        description=bucket.holds,
        history=1,
        ttl=bucket.max_age_s or None,
        max_bytes=bucket.max_bytes,
        storage=StorageType.FILE,
        direct=True,
        replicas=replicas,
    )


def store_config(store: Bucket, replicas: int = 1) -> ObjectStoreConfig:
    """Our words in JetStream's."""
    return ObjectStoreConfig(
        bucket=store.name,
        description=store.holds,
        ttl=store.max_age_s or None,
        max_bytes=store.max_bytes,
        storage=StorageType.FILE,
        replicas=replicas,
    )


async def _said_at_the_end(_error: Exception) -> None:
    """nats-py's own would print a traceback for each try."""


class Replicas(Struct, frozen=True):
    """Read from the environment by shared.settings.load."""

    replicas: Annotated[
        Literal[1, 3, 5],
        env("TAJO_NATS_REPLICAS", "how many nodes of the broker's cluster keep each message: 1, 3 or 5"),
    ] = 1


async def bootstrap(url: str, *, login: Login = NOBODY, replicas: int = 1) -> None:
    """Create or update every stream and consumer, and create the buckets and object stores.

    Repeating it changes nothing; with other `replicas` all that is there is kept so often.  Raises nats.errors.Error.
    """
    connection = await nats.connect(
        login.servers(url),
        **login.options(),
        connect_timeout=5,
        max_reconnect_attempts=25,
        reconnect_time_wait=0.2,
        error_cb=_said_at_the_end,
    )
    try:
        jetstream = connection.jetstream()
        for stream in STREAMS:
            config = stream_config(stream, replicas)
            try:
                await jetstream.update_stream(config)
            except nats.js.errors.NotFoundError:
                await jetstream.add_stream(config)
        for consumer in CONSUMERS:
            await jetstream.add_consumer(consumer.stream, consumer_config(consumer))  # creates or updates
        for store in OBJECT_STORES:
            try:
                await _kept(jetstream, f"OBJ_{store.name}", replicas)
            except nats.js.errors.NotFoundError:
                await jetstream.create_object_store(store.name, config=store_config(store, replicas))
        for bucket in BUCKETS:
            try:
                await _kept(jetstream, f"KV_{bucket.name}", replicas)
            except nats.js.errors.NotFoundError:
                await jetstream.create_key_value(bucket_config(bucket, replicas))
    finally:
        await connection.close()


async def _kept(jetstream: JetStreamContext, stream: str, replicas: int) -> None:
    """Change nothing else of what nats-py has made.  Raises NotFoundError."""
    config = (await jetstream.stream_info(stream)).config
    if config.num_replicas != replicas:
        await jetstream.update_stream(config.evolve(num_replicas=replicas))
