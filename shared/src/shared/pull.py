"""Messages of a durable, asked for so that one that comes after silence is handed over at once.

Why not nats-py's `fetch`: where nothing waits it asks with `no_wait` and `expires` together, and the server keeps such a
request open; the next message then often waited for the one behind it (https://github.com/nats-io/nats.py/issues/986).
It also makes a task and a timer for each message.
https://docs.nats.io/reference/reference-protocols/nats_api_reference#jsapiconsumermsgnextstreamconsumer
"""

import asyncio
import time
from contextlib import suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shared.topology import BATCH_BYTES_MAX, Consumer

WAIT_S = 5.0  # how long the server keeps a request open while nothing comes
ANSWER_S = 1.0  # for the answer beyond that; a broker that went away gives none
LOOK_S = 0.5  # between looks whether the connection is another, for which what was asked is gone
AGAIN_S = 0.1  # after an answer other than what is expected, and while there is no connection

# How requests end when all is well: nothing waits; nothing came in time; the next would be one too much for max_bytes.
_NOTHING, _OVER, _FULL = "404", "408", "Message Size Exceeds MaxBytes"


class Pull:
    """One request at a time.  What comes later than we waited for it is handed over with what comes next."""

    def __init__(self, connection: Client, consumer: Consumer) -> None:
        """At most `consumer.batch` messages at once, of BATCH_BYTES_MAX together; one that has more by itself comes alone.

        With `consumer.ahead` the next are asked for when a full batch is handed over, and come while it is worked on.
        """
        self._connection = connection
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.durable}"
        self._batch = consumer.batch
        self._ahead = consumer.ahead
        self._inbox = connection.new_inbox()
        self._subscription: Subscription | None = None
        self._asked = 0  # requests; each is answered under a subject of its own, so no end is another's
        self._left = 0  # messages the request may still bring
        self._open = False  # a request for a batch was sent, and its end not waited for
        # With max_ack_pending reached the server answers a request with nothing, and keeps it: what it may still bring.
        self._kept, self._kept_reply = 0, ""
        self._reconnects = 0
        self._messages: list[Msg] = []
        self._ended = asyncio.Event()
        self._well = True
        self._full = False  # the last request ended because the next message was one too much

    async def begin(self) -> None:
        """Hear what is asked for."""
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", cb=self._hear)

    async def end(self) -> None:
        """Hear nothing any more.  What was not handed over is given back; what is still on its way comes after ack_wait."""
        with suppress(nats.errors.Error):
            if self._subscription:
                await self._subscription.unsubscribe()
            for message in self._messages:
                await message.nak()

    async def messages(self) -> list[Msg]:
        """The next messages, in order: all that wait, or the first that comes; none where none came in WAIT_S."""
        if self._open or not self._messages:
            try:
                await self._ask_for_some()
            except nats.errors.Error:
                self._well = False
        if not self._messages and not self._well:
            await asyncio.sleep(AGAIN_S)
        heard, self._messages = self._messages[: self._batch], self._messages[self._batch :]
        more = len(heard) == self._batch or self._full
        if self._ahead and more and not self._messages and not self._kept:
            with suppress(nats.errors.Error):  # then it is asked for when it is wanted
                await self._ask_for_batch()
        return heard

    async def _ask_for_some(self) -> None:
        self._well = self._connection.is_connected
        if self._reconnects != self._connection.stats["reconnects"]:
            self._reconnects, self._kept, self._open = self._connection.stats["reconnects"], 0, False
        if not self._well:
            return
        if self._kept:
            self._ended.clear()
            await self._wait(WAIT_S)
        else:
            if not self._open:
                await self._ask_for_batch()
            await self._wait(ANSWER_S)
            self._open = False
            if not self._ended.is_set():
                self._kept, self._kept_reply, self._left = self._left, self._reply(), 0
                return
        if not self._messages and self._well:
            await self._ask(1, b'{"batch":1,"expires":%d}' % (WAIT_S * 1e9))
            await self._wait(WAIT_S + ANSWER_S)
            if (
                self._messages
            ):  # and the one that is kept brought none: perhaps a server of a cluster took it along
                self._kept = 0

    async def _ask_for_batch(self) -> None:
        request = b'{"batch":%d,"max_bytes":%d,"no_wait":true}' % (self._batch, BATCH_BYTES_MAX)
        await self._ask(self._batch, request)
        self._open = True

    async def _ask(self, count: int, request: bytes) -> None:
        self._asked += 1
        self._left, self._full = count, False
        self._ended.clear()
        await self._connection.publish(self._subject, request, self._reply())

    async def _wait(self, patience_s: float) -> None:
        until = time.monotonic() + patience_s
        while (left := until - time.monotonic()) > 0:
            if self._reconnects != self._connection.stats["reconnects"]:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_S)):
                    await self._ended.wait()
                return

    async def _hear(self, message: Msg) -> None:
        if not message.subject.startswith(self._inbox):  # a message comes under its own subject
            self._messages.append(message)
            if self._left:
                self._left -= 1
            else:
                self._kept = max(self._kept - 1, 0)
            if not self._left:
                self._ended.set()
        elif message.subject == self._reply():
            said = message.headers or {}
            self._full = said.get("Description") == _FULL
            self._well = self._full or said.get("Status") in (_NOTHING, _OVER)
            self._left = 0
            self._ended.set()
        elif message.subject == self._kept_reply:
            self._kept = 0

    def _reply(self) -> str:
        return f"{self._inbox}.{self._asked}"
