"""What a killed sink had in hand of what is done to a contact alone: it comes again, but what was said later comes first.

JetStream hands over anew what was not acked only after ack_wait, and new messages meanwhile.
"""

import asyncio

import msgspec
import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker

from shared import bus, command
from shared.command import ContactDelete, ContactRelink
from shared.past import past
from shared.topology import BREVO_SINK

SUBJECTS = ("brevo.*.contact.relink", "brevo.*.contact.delete")
AGAIN_S = 0.5  # between tries while the broker is away

log = structlog.get_logger()


async def coming_again(broker: NatsBroker) -> list[tuple[int, ContactRelink | ContactDelete]]:
    """Those handed over and perhaps not acked, each with its position.  Waits for the broker and the durable."""
    while True:
        connection = bus.client(broker)
        if connection is not None:
            try:
                info = await connection.jetstream(timeout=1).consumer_info(
                    BREVO_SINK.stream, BREVO_SINK.durable
                )
            except (nats.errors.Error, nats.js.errors.Error) as error:
                log.debug("no_consumer_yet", durable=BREVO_SINK.durable, error=type(error).__name__)
            else:
                floor, handed = info.ack_floor, info.delivered
                return await _between(
                    broker, floor.stream_seq if floor else 0, handed.stream_seq if handed else 0
                )
        await asyncio.sleep(AGAIN_S)


async def _between(
    broker: NatsBroker, after: int, to: int
) -> list[tuple[int, ContactRelink | ContactDelete]]:
    found: list[tuple[int, ContactRelink | ContactDelete]] = []
    async for messages in past(broker, BREVO_SINK.stream, after=after, to=to, subjects=SUBJECTS):
        for message in messages:
            try:
                said = command.from_body(message.data)
            except msgspec.MsgspecError:
                continue  # it is a dead letter when it comes
            if isinstance(said, ContactRelink | ContactDelete):
                found.append((message.metadata.sequence.stream, said))
    return found
