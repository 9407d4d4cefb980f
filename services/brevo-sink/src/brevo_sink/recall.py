"""Reading RECEIPTS into the ledger: what a lost, an old or another sink's ledger does not know.

Always before the first command is heard.  A sink whose ledger is whole reads nothing but the few receipts it said
last; that is harmless, for folding is idempotent.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from brevo_sink.fold import change
from brevo_sink.ledger import Ledger
from shared import bus, receipt
from shared.topology import RECEIPTS

FETCH_MAX = 1000  # receipts at once: 20 MB, were each to name 200 events
FETCH_TIMEOUT_S = 5.0
TURN_IDS_MAX = 2000  # event ids folded in one transaction, ~20 ms: health is answered in between
GONE_S = 30.0  # after so long without a fetch the broker forgets the consumer of a reader that died
FOLLOW_S = 2.0  # between looks of a sink that stands by
AGAIN_S = 0.5  # between tries while the broker is away
SAY_S = 1.0  # between lines that say how far we are

log = structlog.get_logger()


class GapError(Exception):
    """A message did not come: the broker's consumer is gone, or the connection was lost meanwhile."""


class _Pulled:
    """What the broker sent for one pull.  nats-py's own fetch hands over one by one, at twice the cost."""

    def __init__(self, count: int) -> None:
        self.messages: list[Msg] = []
        self.over = asyncio.Event()
        self._count = count

    async def on(self, message: Msg) -> None:
        """Take one; a message without a reply is the broker's word that no more will come."""
        if message.reply:
            self.messages.append(message)
        if not message.reply or len(self.messages) == self._count:
            self.over.set()


class Recall:
    """The reading, and how far it is."""

    def __init__(self, broker: NatsBroker, ledger: Ledger) -> None:
        self._broker = broker
        self._ledger = ledger
        self.why = "RECEIPTS not read yet"  # why nothing is heard; empty when the ledger is whole

    async def follow(self) -> None:
        """Keep up with the sink that works, so that to take over is quick.  Runs until cancelled."""
        while True:
            await self._is_read()
            await asyncio.sleep(FOLLOW_S)

    async def catch_up(self) -> None:
        """Return when the ledger includes all that RECEIPTS held when this was called, however long that takes."""
        self.why = "RECEIPTS not read yet"
        began, before = time.monotonic(), self._ledger.sequence
        while not await self._is_read():  # noqa: ASYNC110 - another process has no Event of ours
            await asyncio.sleep(AGAIN_S)
        if self._ledger.sequence != before:
            seconds = round(time.monotonic() - began, 2)
            log.info("receipts_read", after=before, to=self._ledger.sequence, seconds=seconds)
        self.why = ""

    async def _is_read(self) -> bool:
        """Try to read; whether all was read that was there."""
        connection = bus.client(self._broker)
        try:
            if connection is not None:
                await self._read(connection)
                return True
        except (nats.errors.Error, nats.js.errors.Error, OSError, GapError) as error:
            log.debug("receipts_not_read", error=type(error).__name__)
        except msgspec.MsgspecError as error:
            # Written by a newer sink, perhaps.  To pass it over could send an event twice; so we wait for somebody.
            why = f"RECEIPTS:{self._ledger.sequence + 1} or a little later cannot be read: {error}"
            if self.why != why:
                log.error("receipt_unreadable", why=why)
            self.why = why
        return False

    async def _read(self, connection: Client) -> None:
        """One pass, from where the ledger is to where RECEIPTS ends now."""
        jetstream = connection.jetstream()
        last = (await jetstream.stream_info(RECEIPTS.name)).state.last_seq
        if last < self._ledger.sequence:
            log.warning("receipts_begin_anew", ledger=self._ledger.sequence, last=last)
            self._ledger.start_over()
        if last == self._ledger.sequence:
            return
        consumer = await jetstream.add_consumer(
            RECEIPTS.name,
            ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self._ledger.sequence + 1,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=GONE_S,
                mem_storage=True,
            ),
        )
        said = time.monotonic()
        read, total = 0, consumer.num_pending or 0
        try:
            while read < total:
                messages = await _pull(connection, consumer.name, min(FETCH_MAX, total - read))
                if not messages or messages[-1].metadata.sequence.consumer != read + len(messages):
                    raise GapError
                await self._fold(messages)
                read += len(messages)
                self.why = f"reading RECEIPTS: {read} of {total}"
                if time.monotonic() - said >= SAY_S:
                    said = time.monotonic()
                    log.info("reading_receipts", read=read, of=total)
            self._ledger.include((), to=last)
        finally:
            with suppress(nats.errors.Error, nats.js.errors.Error, OSError):
                await jetstream.delete_consumer(RECEIPTS.name, consumer.name)

    async def _fold(self, messages: Sequence[Msg]) -> None:
        start, ids = 0, 0
        read = [receipt.from_body(one.data) for one in messages]
        sequences = _sequences(messages)
        for end, one in enumerate(read, start=1):
            ids += len(one.ids)
            if ids >= TURN_IDS_MAX or end == len(read):
                changes = map(change, read[start:end])
                self._ledger.include(zip(sequences[start:end], changes, strict=True))
                start, ids = end, 0
                await asyncio.sleep(0)


def _sequences(messages: Sequence[Msg]) -> Sequence[int]:
    """Their sequences in the stream; where none is missing between the first and the last, only these are parsed."""
    first, last = (message.metadata.sequence.stream for message in (messages[0], messages[-1]))
    if last - first == len(messages) - 1:
        return range(first, last + 1)
    return [message.metadata.sequence.stream for message in messages]


async def _pull(connection: Client, consumer: str, count: int) -> list[Msg]:
    """So many messages of a consumer, or fewer where there are no more.

    https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-13.md
    """
    pulled, inbox = _Pulled(count), connection.new_inbox()
    subscription = await connection.subscribe(inbox, cb=pulled.on)
    try:
        asked = {"batch": count, "expires": int(FETCH_TIMEOUT_S * 1e9)}
        await connection.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{RECEIPTS.name}.{consumer}", msgspec.json.encode(asked), reply=inbox
        )
        async with asyncio.timeout(2 * FETCH_TIMEOUT_S):
            await pulled.over.wait()
    except TimeoutError:
        raise GapError from None
    finally:
        await subscription.unsubscribe()
    return pulled.messages
