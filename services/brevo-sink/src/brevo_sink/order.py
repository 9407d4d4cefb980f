"""What is done to a contact alone, renaming and deleting, is heard before what was said after it.

Two things would let later commands overtake it.  A killed sink's share of BREVO comes again only after ack_wait, and new
messages meanwhile: so whoever starts learns what is to come again (`coming_again`), and leaves its contacts alone until
then (alone.py).  And the past has a durable of its own, while relinks and deletions are always in the other: so the past
is heard only as far as the other was (`behind`).
"""

import asyncio
from collections.abc import Sequence

import msgspec
import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo

from shared import bus, command
from shared.bus import Handler
from shared.command import ContactDelete, ContactRelink
from shared.past import past
from shared.topology import BREVO_SINK

SUBJECTS = ("brevo.*.contact.relink", "brevo.*.contact.delete")
AGAIN_S = 0.2  # between looks

Coming = list[tuple[int, ContactRelink | ContactDelete]]
"""Commands, each with its position in BREVO."""

log = structlog.get_logger()


class Live:
    """How far the durable of what happens now was heard."""

    def __init__(self, broker: NatsBroker) -> None:
        self._broker = broker
        self._heard = 0  # the last position heard of it

    async def coming_again(self) -> Coming:
        """Those handed over and perhaps not acked.  Waits for the broker and the durable."""
        while (info := await self._info()) is None:  # noqa: ASYNC110 - another process has no Event of ours
            await asyncio.sleep(AGAIN_S)
        after = info.ack_floor.stream_seq if info.ack_floor else 0
        self._heard = info.delivered.stream_seq if info.delivered else 0  # it comes again, or was settled
        found: Coming = []
        async for messages in past(
            self._broker, BREVO_SINK.stream, after=after, to=self._heard, subjects=SUBJECTS
        ):
            for message in messages:
                try:
                    said = command.from_body(message.data)
                except msgspec.MsgspecError:
                    continue  # it is a dead letter when it comes
                if isinstance(said, ContactRelink | ContactDelete):
                    found.append((message.metadata.sequence.stream, said))
        return found

    def ahead(self, handler: Handler) -> Handler:
        """The handler of what happens now."""

        async def on_batch(messages: list[Msg]) -> None:
            await handler(messages)
            self._heard = max(self._heard, _last(messages))

        return on_batch

    def behind(self, handler: Handler) -> Handler:
        """The handler of the past: it waits until nothing of now that was said before it is unheard."""

        async def on_batch(messages: list[Msg]) -> None:
            last = _last(messages)
            while not await self._is_heard_to(last):  # noqa: ASYNC110 - the broker has no Event of ours
                await asyncio.sleep(AGAIN_S)
            await handler(messages)

        return on_batch

    async def _is_heard_to(self, position: int) -> bool:
        """Whether all before a position, at which BREVO has a command, was heard."""
        if position <= self._heard:
            return True
        info = await self._info()
        handed = info.delivered.stream_seq if info and info.delivered else 0
        return info is not None and handed <= self._heard and (handed >= position or info.num_pending == 0)

    async def _info(self) -> ConsumerInfo | None:
        connection = bus.client(self._broker)
        if connection is None:
            return None
        try:
            info: ConsumerInfo = await connection.jetstream(timeout=1).consumer_info(
                BREVO_SINK.stream, BREVO_SINK.durable
            )
        except (nats.errors.Error, nats.js.errors.Error) as error:
            log.debug("no_consumer", durable=BREVO_SINK.durable, error=type(error).__name__)
            return None
        return info


def _last(messages: Sequence[Msg]) -> int:
    """The highest position of a batch; what is delivered again stands in it in any order."""
    return max(message.metadata.sequence.stream for message in messages)
