"""Make the broker be as topology.py says: create what is missing, update what differs, delete nothing."""

import nats
import nats.js.errors
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

from shared.topology import BUCKETS, CONSUMERS, OBJECT_STORES, STREAMS, Bucket, Consumer, Stream


def stream_config(stream: Stream) -> StreamConfig:
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
        num_replicas=1,
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


def bucket_config(bucket: Bucket) -> KeyValueConfig:
    """Our words in JetStream's."""
    return KeyValueConfig(
        bucket=bucket.name,
        description=bucket.holds,
        history=1,
        ttl=bucket.max_age_s or None,
        max_bytes=bucket.max_bytes,
        storage=StorageType.FILE,
        direct=True,
    )


def store_config(store: Bucket) -> ObjectStoreConfig:
    """Our words in JetStream's."""
    return ObjectStoreConfig(
        bucket=store.name,
        description=store.holds,
        ttl=store.max_age_s or None,
        max_bytes=store.max_bytes,
        storage=StorageType.FILE,
    )


async def _said_at_the_end(_error: Exception) -> None:
    """nats-py's own would print a traceback for each try."""


async def bootstrap(url: str) -> None:
    """Create or update every stream and consumer, and create the buckets and object stores.  Repeating it changes nothing.  Raises nats.errors.Error."""
    connection = await nats.connect(
        url,
        connect_timeout=5,
        max_reconnect_attempts=25,
        reconnect_time_wait=0.2,
        error_cb=_said_at_the_end,
    )
    try:
        jetstream = connection.jetstream()
        for stream in STREAMS:
            try:
                await jetstream.update_stream(stream_config(stream))
            except nats.js.errors.NotFoundError:
                await jetstream.add_stream(stream_config(stream))
        for consumer in CONSUMERS:
            await jetstream.add_consumer(consumer.stream, consumer_config(consumer))  # creates or updates
        for bucket in BUCKETS:
            try:
                await jetstream.key_value(bucket.name)
            except nats.js.errors.BucketNotFoundError:
                await jetstream.create_key_value(bucket_config(bucket))
        for store in OBJECT_STORES:
            try:
                await jetstream.object_store(store.name)
            except nats.js.errors.BucketNotFoundError:
                await jetstream.create_object_store(store.name, config=store_config(store))
    finally:
        await connection.close()
