"""How full streams are and how far durables are behind: the broker is asked now and then, beside the work.

Who works through a durable watches it, so one process says it.  Best effort: a broker that is away leaves what was
said last, and `tajo_ready` says the rest.
"""

import asyncio
from collections.abc import Sequence

import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker
from prometheus_client import CollectorRegistry, Gauge

from shared.bus import client
from shared.topology import Consumer, Stream

LOOK_S = 5.0  # as often as a heartbeat; Prometheus scrapes each 15 s
TIMEOUT_S = 2.0  # of each request

log = structlog.get_logger()


class Pending:
    """Streams and durables, as they were when we looked last."""

    def __init__(
        self,
        broker: NatsBroker,
        registry: CollectorRegistry,
        *,
        streams: Sequence[Stream],
        consumers: Sequence[Consumer],
    ) -> None:
        self._broker = broker
        self._streams = streams
        self._consumers = consumers
        self._pending = Gauge(
            "tajo_consumer_pending",
            "Messages of its stream that a durable was not handed yet",
            ["durable"],
            registry=registry,
        )
        self._unacked = Gauge(
            "tajo_consumer_ack_pending",
            "Messages a durable was handed and has not acked",
            ["durable"],
            registry=registry,
        )
        self._messages = Gauge(
            "tajo_stream_messages", "Messages a stream holds", ["stream"], registry=registry
        )
        self._bytes = Gauge("tajo_stream_bytes", "Bytes a stream holds", ["stream"], registry=registry)
        self._bytes_max = Gauge(
            "tajo_stream_bytes_max",
            "Bytes a stream may hold; absent where it has no limit",
            ["stream"],
            registry=registry,
        )

    async def watch(self) -> None:
        """Look again and again.  Ends when cancelled."""
        while True:
            try:
                await self._look()
            except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
                log.debug("pending_unknown", error=type(error).__name__)
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        connection = client(self._broker)
        if connection is None:
            return
        jetstream = connection.jetstream(timeout=TIMEOUT_S)
        for consumer in self._consumers:
            info = await jetstream.consumer_info(consumer.stream, consumer.durable)
            self._pending.labels(consumer.durable).set(info.num_pending or 0)
            self._unacked.labels(consumer.durable).set(info.num_ack_pending or 0)
        for stream in self._streams:
            held = await jetstream.stream_info(stream.name)
            self._messages.labels(stream.name).set(held.state.messages)
            self._bytes.labels(stream.name).set(held.state.bytes)
            if held.config.max_bytes and held.config.max_bytes > 0:
                self._bytes_max.labels(stream.name).set(held.config.max_bytes)
