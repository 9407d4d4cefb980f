"""A running deployment, looked at over its broker alone: what `tajo connectors status` and the Python client ask."""

from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.aio.client import Client

from shared.heartbeat import Heartbeat, from_value
from shared.login import Login
from shared.topology import CONSUMERS, CURSORS, STATUS, STREAMS
from tajo.broker import connected
from tajo.status import Beat, Lag, Seen, Status, Stored, judge
from tajo.up import SERVICES

TIMEOUT_S = 5.0  # of each request


class _State(Struct):
    """https://github.com/nats-io/nats-server/blob/main/server/store.go StreamState"""

    messages: int
    last_ts: datetime
    subjects: dict[str, int] | None = None  # of a bucket; its limit in bytes bounds them


class _StreamInfo(Struct):
    """nats-py leaves out what is asked for here: the broker's time, and that of the last message."""

    ts: datetime | None = None
    state: _State | None = None


async def status(nats_url: str, login: Login | None = None) -> Status:
    """How the deployment on this broker does.  Raises as `connected`."""
    async with connected(nats_url, login) as connection:
        return judge(await look(connection), tuple(SERVICES))


async def look(connection: Client) -> Seen:
    """Read all that `judge` wants to know.  Raises nats' errors."""
    jetstream = connection.jetstream(timeout=TIMEOUT_S)
    await jetstream.account_info()  # a broker without JetStream is none
    streams: dict[str, Stored] = {}
    for stream in STREAMS:
        state = (await _stream(connection, stream.name)).state
        if state is not None:
            streams[stream.name] = Stored(state.messages, state.last_ts)
    lags: dict[str, Lag] = {}
    for consumer in CONSUMERS:
        try:
            told = await jetstream.consumer_info(consumer.stream, consumer.durable)
        except nats.js.errors.NotFoundError:
            continue
        lags[consumer.durable] = Lag(told.num_pending or 0, told.num_ack_pending or 0)
    cursors = await entries(connection, CURSORS.name)
    beats = await entries(connection, STATUS.name)
    now = (await _stream(connection, f"KV_{STATUS.name}")).ts
    return Seen(
        now=now or datetime.now(UTC),  # without the bucket there is nothing to be dated
        beats=None if beats is None else [
            Beat(said, at) for value, at in beats.values() if (said := _heartbeat(value)) is not None
        ],
        streams=streams,
        lags=lags,
        cursors={name: int(value) for name, (value, _) in (cursors or {}).items() if value.isdigit()},
    )  # fmt: skip


async def _stream(connection: Client, name: str, subjects: str = "") -> _StreamInfo:
    """A stream, with the subjects asked for; with nothing in it where there is none."""
    asked = msgspec.json.encode({"subjects_filter": subjects} if subjects else {})
    answer = await connection.request(f"$JS.API.STREAM.INFO.{name}", asked, timeout=TIMEOUT_S)
    return msgspec.json.decode(answer.data, type=_StreamInfo)


async def entries(connection: Client, name: str) -> dict[str, tuple[bytes, datetime]] | None:
    """Each key of a bucket with its value and when the broker stored it; None where there is no such bucket.

    Key by key, because a watcher of nats-py says on a busy machine that there is nothing, before it has looked.
    """
    stream, before = f"KV_{name}", f"$KV.{name}."
    state = (await _stream(connection, stream, f"{before}>")).state
    if state is None:
        return None
    jetstream = connection.jetstream(timeout=TIMEOUT_S)
    entries: dict[str, tuple[bytes, datetime]] = {}
    for subject in state.subjects or ():
        with suppress(nats.js.errors.NotFoundError):  # it has just been removed
            entry = await jetstream.get_last_msg(stream, subject, direct=True)
            if entry.data:  # else it was deleted
                at = msgspec.convert((entry.headers or {})["Nats-Time-Stamp"], datetime)
                entries[subject.removeprefix(before)] = (entry.data, at)
    return entries


def _heartbeat(value: bytes) -> Heartbeat | None:
    """None where another version says what this one cannot read."""
    try:
        return from_value(value)
    except msgspec.MsgspecError:
        return None
