"""Group commit: many requests, one flight to disk at a time, so that one fsync serves them all."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ingest.keep import NotKeptError
from shared.message import MSG_ID, Message
from shared.publish import ATOMIC_MAX

WAITING_MAX = 10_000  # messages; at 4,000 a second 2.5 s of them, and Twilio waits 5
WAITING_BYTES_MAX = 64 * 1024**2
FLIGHT_BYTES_MAX = 4 * 1024**2  # what one flight carries beyond its first message
ACKED_MAX = 50_000  # ids remembered, ~8 MB: Twilio's quick retries come within seconds


class FullError(Exception):
    """More waits than may wait: the disk is slower than the callers."""


class Commit:
    """Keeps for many callers at once.  A message kept once is not kept again; its caller is told so."""

    def __init__(self, keep: Callable[[Sequence[Message]], Awaitable[None]]) -> None:
        self._keep = keep
        self._waiting: dict[str, Message] = {}
        self._acks: dict[str, asyncio.Future[None]] = {}  # of what waits and what is in flight
        self._bytes = 0
        self._acked: dict[str, None] = {}  # in order, the oldest first
        self._flying: asyncio.Task[None] | None = None

    async def put(self, messages: Sequence[Message]) -> None:
        """Return when every message is on disk.  Raises FullError before any is taken, NotKeptError after."""
        new = {m.headers[MSG_ID]: m for m in messages if m.headers[MSG_ID] not in self._acked}
        fresh = [m for id_, m in new.items() if id_ not in self._acks]
        size = sum(len(m.body) for m in fresh)
        if len(self._acks) + len(fresh) > WAITING_MAX or (
            self._acks and self._bytes + size > WAITING_BYTES_MAX
        ):
            raise FullError
        loop = asyncio.get_running_loop()
        for message in fresh:
            self._waiting[message.headers[MSG_ID]] = message
            self._acks[message.headers[MSG_ID]] = loop.create_future()
        self._bytes += size
        acks = [self._acks[id_] for id_ in new]
        if self._waiting and self._flying is None:
            self._flying = asyncio.create_task(self._fly())
        for ack in acks:
            await asyncio.shield(ack)  # a caller that hangs up must not take the others' answer along

    async def _fly(self) -> None:
        while self._waiting:
            batch = self._board()
            try:
                await self._keep(list(batch.values()))
            except Exception as error:  # noqa: BLE001 - whatever it was, those who wait must hear of it
                for id_ in batch:
                    ack = self._acks.pop(id_)
                    ack.set_exception(NotKeptError(type(error).__name__))
                    ack.exception()  # retrieved here: its callers may all have hung up
            else:
                for id_ in batch:
                    self._acks.pop(id_).set_result(None)
                self._remember(batch)
            self._bytes -= sum(len(message.body) for message in batch.values())
        self._flying = None

    def _board(self) -> dict[str, Message]:
        batch: dict[str, Message] = {}
        size = 0
        for id_, message in self._waiting.items():
            size += len(message.body)
            if batch and (len(batch) == ATOMIC_MAX or size > FLIGHT_BYTES_MAX):
                break
            batch[id_] = message
        for id_ in batch:
            del self._waiting[id_]
        return batch

    def _remember(self, batch: dict[str, Message]) -> None:
        self._acked.update(dict.fromkeys(batch))
        while len(self._acked) > ACKED_MAX:
            del self._acked[next(iter(self._acked))]
