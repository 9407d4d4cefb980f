"""The bus: connect to NATS, and consume in batches; publish.py is what is said over it.  The only FastStream wiring.

Why not a publish and a handler per message: on two cores, with each ack fsynced, those carry 1,200 to
2,000 messages a second; batches carry 8,000 and more.
"""

import asyncio
import ssl
import time
import traceback
import types
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any, cast

import nats.errors
import nats.js.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.security import NatsSecurity, NatsUserPassword
from faststream.security import BaseSecurity
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol.parser import AUTHORIZATION_VIOLATION, PERMISSIONS_ERR

from shared import dead, headers
from shared.login import CERTIFICATES, DENIED, NOBODY, Login
from shared.message import Message
from shared.publish import FAILURES, NotPublishedError, publish, publish_each, refused
from shared.pull import Pull
from shared.topology import Consumer

WAIT_S = 0.1  # between looks for a consumer that the bootstrap has not made yet
SAY_AGAIN_S = 60.0  # between two log lines of the same error
ERRORS_MAX = 100  # kinds of errors, and denied subjects, remembered for that long; more are not said
PING_S = 5  # a broker that hangs is given up after two unanswered; nats-py's own 120 s would be four minutes
TRIES_MAX = 8  # of a message that makes a handler raise: ~4 min with the delays between
DELAY_MAX_S = 60.0

Handler = Callable[[list[Msg]], Awaitable[None]]

log = structlog.get_logger()


class _Untouched:
    """A codec that hands on what came, so that one bad message can never take its batch along."""

    async def decode(self, msg: Any) -> Any:
        return msg.raw_message

    async def decode_batch(self, msg: Any) -> Any:
        return msg.raw_message

    async def encode(self, msg: Any, serializer: object = None) -> tuple[bytes, str | None]:  # noqa: ARG002
        return bytes(msg), None

    async def encode_batch(self, msg: Any, serializer: object = None) -> tuple[list[bytes], str | None]:  # noqa: ARG002
        return [bytes(item) for item in msg], None


def error_log(login: Login) -> Callable[[Exception], Awaitable[None]]:
    """Each error at most once a minute: while a broker is away, each try to reach it is one."""
    said: dict[str, float] = {}

    async def on_error(error: Exception) -> None:
        # A denied publish is silent for its caller and says its reason only here.
        now, reason = time.monotonic(), str(error)[:200]
        denied = PERMISSIONS_ERR in reason
        about = reason if denied else type(error).__name__
        for one in [one for one, at in said.items() if now - at >= SAY_AGAIN_S]:
            del said[one]
        if about in said or len(said) >= ERRORS_MAX:
            return
        said[about] = now
        if denied:
            log.error("nats_denied", reason=reason, remedy=DENIED)
        elif AUTHORIZATION_VIOLATION in reason.lower():
            log.error("nats_refused", reason=reason, remedy=login.remedy)
        elif isinstance(error, ssl.SSLError):
            log.error("nats_refused", reason=reason, remedy=CERTIFICATES)
        else:
            log.warning("nats_error", error=about, reason=reason)

    return on_error


class _Broker(NatsBroker):
    """Reads headers as shared/headers.py says."""

    async def _connect(self) -> Client:
        connection = await super()._connect()
        connection._parse_header_lines = headers.parse  # type: ignore[method-assign]  # noqa: SLF001 - no public way
        return connection


def connect(url: str, *, service: str, login: Login = NOBODY) -> NatsBroker:
    """A broker that reconnects for ever, decodes nothing and logs no message."""
    return _Broker(
        login.servers(url),
        name=service,
        security=_security(login),
        inbox_prefix=login.inbox,
        codec=_Untouched(),
        serializer=None,
        apply_types=False,
        logger=None,
        error_cb=error_log(login),
        reconnect_time_wait=0.2,  # type: ignore[arg-type]  # seconds; nats-py takes a float
        max_reconnect_attempts=-1,
        ping_interval=PING_S,
        graceful_timeout=15.0,
    )


def _security(login: Login) -> BaseSecurity | None:
    """`login.options()` in FastStream's words."""
    first = login.tls is not None
    if login.password and login.user:
        return NatsUserPassword(
            login.user.name, login.password, ssl_context=login.tls, tls_handshake_first=first
        )
    return NatsSecurity(ssl_context=login.tls, tls_handshake_first=True) if login.tls else None


def client(broker: NatsBroker) -> Client | None:
    """The broker's live connection, or None while there is none."""
    connection = broker._connection  # noqa: SLF001 - FastStream has no public name for it
    return connection if connection is not None and connection.is_connected else None


def connected(broker: NatsBroker) -> Client:
    """The same.  Raises NotPublishedError while there is none."""
    connection = client(broker)
    if connection is None:
        raise NotPublishedError("no connection to NATS")
    return connection


def subscribe(broker: NatsBroker, consumer: Consumer, handler: Handler) -> Any:
    """Hear an existing durable, in batches, in order, one batch at a time.

    The handler acks, naks or terms each message itself.  What it does not settle comes again after the
    consumer's ack_wait.  While the handler runs nothing more is fetched, or with `ahead` one batch: that is the
    backpressure.  A handler that raises has a bug: the batch is then handed over one by one, the message that makes
    it raise comes again with a growing delay, and is a dead letter after TRIES_MAX tries.
    """
    subscriber = broker.subscriber(
        ">",
        stream=JStream(
            consumer.stream, declare=False
        ),  # FastStream's declaration resets an existing stream's settings
        durable=consumer.durable,
        ack_policy=AckPolicy.MANUAL,
        inbox_prefix=cast(
            "bytes", None
        ),  # nats-py then takes the connection's; FastStream's default is another
        pull_sub=PullSub(batch_size=consumer.batch, batch=True),
    )
    subscriber(_settling(broker, consumer.durable, handler))

    async def consume_at_once(self: Any) -> None:
        # FastStream 0.7.8 waits for a full batch or the timeout, and asks by nats-py's fetch: see pull.py.
        connection = cast("Client", broker._connection)  # noqa: SLF001 - that of which the subscription just came
        pull = Pull(connection, consumer)
        await pull.begin()
        try:
            while self.running:
                messages = await pull.messages()
                if messages and self.running:
                    await self.consume(messages)
        finally:
            await pull.end()

    subscriber._consume_pull = types.MethodType(consume_at_once, subscriber)  # type: ignore[method-assign]  # noqa: SLF001
    return subscriber


def _settling(broker: NatsBroker, who: str, handler: Handler) -> Handler:
    """The edge of the bus: the one place where any exception is caught, and none ends in a bare nak."""

    async def settle(batch: list[Msg]) -> None:
        try:
            await handler(batch)
        except Exception as error:  # noqa: BLE001 - a bug must not stop the stream
            log.error("handler_failed", messages=len(batch), error=type(error).__name__, where=_where(error))
            if len(batch) > 1:
                for message in batch:
                    if not message.is_acked:
                        await settle([message])
            else:
                await _put_off(broker, who, batch[0], error)

    return settle


async def _put_off(broker: NatsBroker, who: str, message: Msg, error: Exception) -> None:
    metadata = message.metadata
    if metadata.num_delivered < TRIES_MAX:
        await message.nak(delay=min(0.5 * 2**metadata.num_delivered, DELAY_MAX_S))
        return
    origin = f"{metadata.stream}:{metadata.sequence.stream}"
    letter = dead.to_message(
        who=who,
        why=f"{type(error).__name__} at {_where(error)}",
        where=f"{origin}:{message.subject}",
        msg_id=origin,
        body=message.data,
        headers=message.headers or {},
        tries=metadata.num_delivered,
    )
    with suppress(NotPublishedError):  # then it comes again after ack_wait
        await Publisher(broker).publish([letter])
        await message.ack()


def _where(error: Exception) -> str:
    """The innermost line; an exception's text may hold what a customer wrote, its place never does."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{PurePath(frame.filename).name}:{frame.lineno} in {frame.name}"


async def listen(
    broker: NatsBroker, consumer: Consumer, handler: Callable[[list[Msg]], Awaitable[None]]
) -> Any:
    """Wait until the consumer exists, however long that takes; then hear it, as `subscribe` says.

    Returns the subscriber, to be stopped by who gives messages back: else they would come to the same process again.
    """
    said = False
    while not await _exists(broker, consumer):
        if not said:
            log.info("waiting_for_consumer", stream=consumer.stream, durable=consumer.durable)
            said = True
        await asyncio.sleep(WAIT_S)
    subscriber = subscribe(broker, consumer, handler)
    await subscriber.start()
    return subscriber


async def _exists(broker: NatsBroker, consumer: Consumer) -> bool:
    connection = client(broker)
    if connection is None:
        return False
    try:
        await connection.jetstream(timeout=1).consumer_info(consumer.stream, consumer.durable)
    except (nats.errors.Error, nats.js.errors.Error):
        return False
    return True


async def waits(broker: NatsBroker, consumer: Consumer) -> bool:
    """Whether its stream holds what the consumer was not handed yet; also where nobody can say."""
    connection = client(broker)
    if connection is None:
        return True
    try:
        info = await connection.jetstream(timeout=1).consumer_info(consumer.stream, consumer.durable)
    except (nats.errors.Error, nats.js.errors.Error):
        return True
    return bool(info.num_pending)


class Publisher:
    """Publishes so that what returns without an error is on disk."""

    def __init__(self, broker: NatsBroker, *, may: Callable[[], bool] = lambda: True) -> None:
        """`may` says whether we may say anything just now: a lease's `held`."""
        self._broker = broker
        self._may = may

    async def publish(self, messages: Sequence[Message]) -> None:
        """As publish.py does, over the broker's connection."""
        await publish(self._connection(), messages)

    async def publish_one(self, message: Message) -> int:
        """Publish one, as `publish` does; returns its sequence in the stream."""
        return await self.publish_few([message])

    async def publish_few(self, messages: Sequence[Message]) -> int:
        """Publish some of one stream, each by itself, as `publish` does; returns the last one's sequence there."""
        try:
            return max(await publish_each(self._connection(), messages))
        except FAILURES as error:
            raise refused(error) from error

    def _connection(self) -> Client:
        if not self._may():
            raise NotPublishedError("the lease is not ours")
        return connected(self._broker)
