"""A raw event: what Twilio said, as bytes, in a CloudEvents 1.0 envelope in binary mode.

The body is one array element, one REST item or one form body, as received (after redaction), so
that a mistake in reading it is mended by replay.  The envelope says where to look for what.
NATS binding: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/nats-protocol-binding.md
"""

import re
import zlib
from datetime import UTC, datetime
from functools import lru_cache

from msgspec import Struct

from shared.message import MSG_ID, Message

SHARDS = 64  # two digits in a subject: a bounded subject count, and the key to scale out by

PRODUCTS = ("taskrouter", "conversations", "flex", "survey")

_TOKEN = re.compile(r"[^A-Za-z0-9_-]+")  # what a subject token may not hold


class RawEvent(Struct, frozen=True, kw_only=True):
    """One thing that happened at Twilio.

    `id` comes from the cause: the EV sid where there is one, else type + resource sid + ms.  It is
    the Nats-Msg-Id, so the stream's dedup window drops most of what is heard twice; the book drops
    the rest.
    """

    id: str
    product: str  # one of PRODUCTS
    type: str  # Twilio's own: task.completed, reservation.accepted; or ours: conversation.added
    source: (
        str  # how we heard, and so which shape the body has: /webhooks/taskrouter, /rest/taskrouter/events
    )
    subject: str  # the sid of the thing it happened to
    account_sid: str
    time_ms: int  # when it happened at Twilio, epoch milliseconds; never when we heard
    content_type: str
    body: bytes


def shard(sid: str) -> str:
    """Two digits from a sid: the same sid is always in the same shard."""
    return f"{zlib.crc32(sid.encode()) % SHARDS:02d}"


def rfc3339(time_ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC, with milliseconds: 2026-11-20T10:14:05.123Z."""
    seconds, ms = divmod(time_ms, 1000)
    return f"{_clock(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=1024)
def _clock(seconds: int) -> str:
    """What is heard or folded together happened in the same few seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def epoch_ms(text: str) -> int:
    """RFC 3339 as epoch milliseconds.  Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _token(text: str) -> str:
    return _TOKEN.sub("_", text) or "_"


@lru_cache(maxsize=1024)  # types, of at most 200 characters; Twilio has some hundred
def _tokens(type_: str) -> str:
    return ".".join(map(_token, type_.split(".")))


def to_message(event: RawEvent, traceparent: str) -> Message:
    """The event as it stands in the stream TWILIO."""
    return Message(
        subject=f"twilio.{_token(event.account_sid)}.{shard(event.subject)}.{event.product}.{_tokens(event.type)}",
        body=event.body,
        headers={
            MSG_ID: event.id,
            "ce-specversion": "1.0",
            "ce-id": event.id,
            "ce-type": f"com.twilio.{event.product}.{event.type}",
            "ce-source": event.source,
            "ce-subject": event.subject,
            "ce-time": rfc3339(event.time_ms),
            "content-type": event.content_type,
            "traceparent": traceparent,
        },
    )


def from_message(subject: str, headers: dict[str, str], body: bytes) -> RawEvent:
    """The event a message of TWILIO carries.  Raises ValueError when the envelope is broken."""
    try:
        _, account_sid, _, product, _ = subject.split(".", 4)
        prefix = f"com.twilio.{product}."
        if not headers["ce-type"].startswith(prefix):
            raise ValueError(f"ce-type does not start with {prefix}")
        return RawEvent(
            id=headers["ce-id"],
            product=product,
            type=headers["ce-type"].removeprefix(prefix),
            source=headers["ce-source"],
            subject=headers["ce-subject"],
            account_sid=account_sid,
            time_ms=epoch_ms(headers["ce-time"]),
            content_type=headers.get("content-type", ""),
            body=body,
        )
    except KeyError as error:
        raise ValueError(f"the envelope lacks the header {error.args[0]}") from error
