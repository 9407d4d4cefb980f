"""Publishing over a connection, so that what returns without an error is on disk."""

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.message import Message

PUBLISH_TIMEOUT_S = 2.0  # ingest must answer Twilio within 5 s: one try, and room for the way back
ATOMIC_FROM = 20  # messages; below, an atomic batch's fixed 5 ms costs more than one fsync each
ATOMIC_MAX = 500  # messages; the server takes 1,000 at most (ADR-50), and latency grows with the batch
# Of a connection, and of what answers.
FAILURES = (nats.errors.Error, nats.js.errors.Error, msgspec.MsgspecError, OSError)
_NO_RESPONDERS = "503"
_DUPLICATE_IN_BATCH = 10201  # err_code: a Msg-Id of the batch stands in the stream's dedup window already


class NotPublishedError(Exception):
    """No PubAck: the broker is away, full, or refuses.  Nothing is known to be stored; repeat with the same ids."""


async def publish(connection: Client, messages: Sequence[Message]) -> None:
    """Publish in order within each stream, each at least once, and return when all are acked.

    Few go one by one, many as atomic batches (one fsync a batch).  A message whose Nats-Msg-Id the
    stream has seen within its dedup window counts as published.  Raises NotPublishedError; some of
    the messages may then be stored, so repeat all of them with the same ids.
    """
    try:
        for _, of_one_stream in itertools.groupby(sorted(messages, key=_root), key=_root):
            of_stream = list(of_one_stream)
            for start in range(0, len(of_stream), ATOMIC_MAX):
                chunk = of_stream[start : start + ATOMIC_MAX]
                if len(chunk) < ATOMIC_FROM or not await _publish_atomic(connection, chunk):
                    await publish_each(connection, chunk)
    except FAILURES as error:
        raise refused(error) from error


def refused(error: Exception) -> NotPublishedError:
    """What one of FAILURES says to who publishes; a stream's own words, as that it is full, name nobody."""
    said = error.description if isinstance(error, nats.js.errors.APIError) else ""
    return NotPublishedError(f"JetStream refuses it: {said}" if said else f"{type(error).__name__} from NATS")


def _root(message: Message) -> str:
    """What tells the stream, for an atomic batch is of one stream only."""
    return message.subject.partition(".")[0]


async def publish_each(connection: Client, messages: Sequence[Message]) -> list[int]:
    """Publish each by itself, all at once; the sequence of each.  Raises FAILURES."""
    acks = _Acks(connection.new_inbox(), len(messages))
    # One subscription for all: nats-py's publish makes a task, a timer and a future for each, which cost as much again.
    subscription = await connection.subscribe(f"{acks.inbox}.*", cb=acks.on)
    try:
        for number, message in enumerate(messages):
            await connection.publish(
                message.subject, message.body, f"{acks.inbox}.{number}", headers=dict(message.headers)
            )
        async with asyncio.timeout(PUBLISH_TIMEOUT_S):
            await acks.complete.wait()
    except TimeoutError:
        raise nats.errors.TimeoutError from None
    finally:
        with suppress(nats.errors.Error):  # where the connection is closed, it goes with it
            await subscription.unsubscribe()
    return acks.sequences()


class _Acks:
    """What the broker answers to each of several messages, under a subject of its own."""

    def __init__(self, inbox: str, count: int) -> None:
        self.inbox = inbox
        self.complete = asyncio.Event()
        self._answers: list[Msg | None] = [None] * count

    async def on(self, answer: Msg) -> None:
        self._answers[int(answer.subject.rpartition(".")[2])] = answer
        if all(self._answers):
            self.complete.set()

    def sequences(self) -> list[int]:
        return [_sequence(answer) for answer in self._answers if answer]


def _sequence(answer: Msg) -> int:
    if (answer.headers or {}).get("Status") == _NO_RESPONDERS:
        raise nats.js.errors.NoStreamResponseError
    ack = msgspec.json.decode(answer.data, type=_PubAck)
    if ack.error is not None:
        raise nats.js.errors.APIError.from_error(ack.error)
    if not ack.seq:
        raise NotPublishedError("what answered is no stream")
    return ack.seq


class _PubAck(Struct):
    """https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md"""

    error: dict[str, Any] | None = None
    seq: int = 0
    count: int = 0


async def _publish_atomic(connection: Client, messages: Sequence[Message]) -> bool:
    """All or nothing, with one PubAck for the last.  False when an id is known already: nothing is stored then."""
    batch, last = secrets.token_hex(11), len(messages)
    for number, message in enumerate(messages[:-1], start=1):
        await connection.publish(message.subject, message.body, headers=_numbered(message, batch, number))
    commit = {**_numbered(messages[-1], batch, last), "Nats-Batch-Commit": "1"}
    answer = await connection.request(
        messages[-1].subject, messages[-1].body, timeout=PUBLISH_TIMEOUT_S, headers=commit
    )
    ack = msgspec.json.decode(answer.data, type=_PubAck)
    if ack.error is None and ack.count == last:
        return True
    if ack.error is not None and ack.error.get("err_code") != _DUPLICATE_IN_BATCH:
        raise NotPublishedError(
            f"JetStream refused the batch: {ack.error.get('description', 'no reason given')}"
        )
    return False


def _numbered(message: Message, batch: str, number: int) -> dict[str, str]:
    return {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
