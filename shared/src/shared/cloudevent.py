"""A raw event outside of the log: one line of JSON, a CloudEvent 1.0 in structured mode.  Pure.

What `tajo log export` writes, `tajo log import` reads, and the `given.ndjson` of a story is.  The body comes back
byte for byte: where JSON or text cannot hold it so, it stands in `data_base64`.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

import base64
import binascii
import re
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from shared.body import NOT_JSON
from shared.event import PRODUCTS, RawEvent, epoch_ms, from_message, to_message
from shared.message import MSG_ID, Message
from shared.topology import MESSAGE_BYTES_MAX

VERSION = "1.0"
LINE_BYTES_MAX = 2 * MESSAGE_BYTES_MAX  # base64 makes of three bytes four, and the envelope is some hundred

_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;|$)", re.IGNORECASE | re.ASCII)
_TYPE = re.compile(rf"com\.twilio\.(?:{'|'.join(PRODUCTS)})\.[\w.-]{{1,200}}", re.ASCII)
_ONE_LINE = re.compile(r"[^\x00-\x1f\x7f]*")  # what a header can hold


class Logged(Struct, frozen=True):
    """A message of TWILIO, and where and when it was stored."""

    message: Message
    sequence: int
    stored: str  # RFC 3339


class NotACloudEventError(ValueError):
    """What is wrong with a line.  It names attributes, and repeats no value."""


class _Cloud(Struct, kw_only=True, omit_defaults=True):
    specversion: str
    id: str
    type: str
    source: str
    subject: str
    time: str
    datacontenttype: str | None = None
    # Extensions.  The sequence is text because a CloudEvents integer has 32 bits.
    accountsid: str = ""
    product: str = ""
    traceparent: str = ""
    msgid: str = ""  # Nats-Msg-Id, where it is another than `id`: the event was said again
    logsequence: str = ""
    logtime: str = ""
    data: Raw | UnsetType = UNSET
    data_base64: str | UnsetType = UNSET


_decoder = msgspec.json.Decoder(_Cloud)


def to_line(logged: Logged) -> bytes:
    """The event as one line, without its end.  Raises ValueError where its envelope is broken."""
    message = logged.message
    event = from_message(message.subject, message.headers, message.body)
    content_type = message.headers.get("content-type")
    msg_id = message.headers.get(MSG_ID, event.id)
    cloud = _Cloud(
        specversion=message.headers.get("ce-specversion", VERSION),
        id=event.id,
        type=message.headers["ce-type"],
        source=event.source,
        subject=event.subject,
        time=message.headers["ce-time"],
        datacontenttype=content_type,
        accountsid=event.account_sid,
        product=event.product,
        traceparent=message.headers.get("traceparent", ""),
        msgid="" if msg_id == event.id else msg_id,
        logsequence=str(logged.sequence or ""),
        logtime=logged.stored,
    )
    if _stands_as_json(message.body, content_type):
        cloud.data = Raw(message.body)
    elif (text := _text(message.body)) is not None and not is_json(content_type):
        cloud.data = Raw(msgspec.json.encode(text))
    if cloud.data is UNSET:
        cloud.data_base64 = base64.b64encode(message.body).decode()
    return msgspec.json.encode(cloud)


def from_line(line: bytes, *, account_sid: str = "") -> Message:
    """The message a line stands for, as it stands in TWILIO; `account_sid` where the line names none.

    Raises NotACloudEventError.
    """
    try:
        cloud = _decoder.decode(line)
    except msgspec.ValidationError as error:
        raise NotACloudEventError(str(error)) from error
    except NOT_JSON as error:
        raise NotACloudEventError("not a whole JSON object: is the line cut off?") from error
    event = RawEvent(
        id=_filled("id", cloud.id),
        product=cloud.type.split(".")[2] if _checked(cloud) else "",
        type=cloud.type.split(".", 3)[3],
        source=_filled("source", cloud.source),
        subject=_filled("subject", cloud.subject),
        account_sid=_filled("accountsid", cloud.accountsid or account_sid),
        time_ms=_ms(cloud.time),
        content_type=_line("datacontenttype", cloud.datacontenttype or ""),
        body=_body(cloud),
    )
    message = to_message(event, _line("traceparent", cloud.traceparent))
    message.headers["ce-time"] = cloud.time
    if cloud.datacontenttype is None:
        del message.headers["content-type"]
    if cloud.msgid:
        message.headers[MSG_ID] = _line("msgid", cloud.msgid)
    size = len(message.body) + sum(len(f"{name}: {value}\r\n") for name, value in message.headers.items())
    if size > MESSAGE_BYTES_MAX:
        raise NotACloudEventError(f"larger than the {MESSAGE_BYTES_MAX // 1024**2} MiB a message may have")
    return message


def event_of(message: Message) -> RawEvent:
    """The raw event of a message of TWILIO.  Raises ValueError where its envelope is broken."""
    return from_message(message.subject, message.headers, message.body)


def is_json(content_type: str | None) -> bool:
    """Whether a media type is JSON's."""
    return _JSON.match(content_type or "") is not None


def _stands_as_json(body: bytes, content_type: str | None) -> bool:
    """Whether the body can stand as a JSON value in a line, and be cut out of it again as it is."""
    if not is_json(content_type) or b"\n" in body or b"\r" in body or body != body.strip():
        return False
    try:
        msgspec.json.decode(body)
        body.decode()
    except NOT_JSON:
        return False
    return True


def _text(body: bytes) -> str | None:
    """The body as text, where that is no longer than base64; escapes can make of a byte six."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return text if len(msgspec.json.encode(text)) <= 64 + 4 * len(body) // 3 else None


def _body(cloud: _Cloud) -> bytes:
    if isinstance(cloud.data_base64, str):
        if cloud.data is not UNSET:
            raise NotACloudEventError("it has both data and data_base64")
        try:
            return base64.b64decode(cloud.data_base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise NotACloudEventError("data_base64 is not base64") from error
    if not isinstance(cloud.data, Raw):
        raise NotACloudEventError("it has neither data nor data_base64")
    raw = bytes(cloud.data)
    if raw[:1] != b'"' or is_json(cloud.datacontenttype):
        return _valid(raw)
    return str(_decoded(raw)).encode()


def _valid(raw: bytes) -> bytes:
    _decoded(raw)
    return raw


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except NOT_JSON as error:
        raise NotACloudEventError("data is not JSON") from error


def _checked(cloud: _Cloud) -> bool:
    if cloud.specversion != VERSION:
        raise NotACloudEventError(f"specversion is not {VERSION}, the only one that is read")
    if not _TYPE.fullmatch(cloud.type):
        raise NotACloudEventError(
            f"type is not com.twilio.<product>.<what happened>; products are {', '.join(PRODUCTS)}"
        )
    return True


def _filled(name: str, value: str) -> str:
    if not value.strip() or value != value.strip():
        raise NotACloudEventError(f"{name} is missing or empty, or has spaces around it")
    return _line(name, value)


def _line(name: str, value: str) -> str:
    if not _ONE_LINE.fullmatch(value):
        raise NotACloudEventError(f"{name} has control characters")
    return value


def _ms(text: str) -> int:
    try:
        return epoch_ms(_line("time", text))
    except (ValueError, OverflowError) as error:
        raise NotACloudEventError("time is not RFC 3339, such as 2026-11-20T10:14:05.123Z") from error
