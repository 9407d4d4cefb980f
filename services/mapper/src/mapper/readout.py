"""What a batch of raw events says, apart from the messages it came in: what is folded, and what goes between processes."""

from collections.abc import Sequence

from msgspec import Struct
from nats.aio.msg import Msg

from mapper.heard import Heard, UnreadableError, read
from mapper.said import Reading
from mapper.search import is_forgotten
from shared.event import from_message
from shared.tombstone import Tombstones
from shared.trace import TRACEPARENT


class ForgottenError(Exception):
    """It happened to somebody before they were forgotten."""


class Readout(Struct, array_like=True, gc=False):
    """A batch, read.  Of `Heard` each has the traceparent it came with."""

    sequence: int  # of its last message
    stored_ms: int  # when the log stored that, epoch milliseconds
    events: list[tuple[Heard, str]]
    customers: int = 0  # how many concern one
    others: int = 0
    unreadable: int = 0
    forgotten: list[int] = []  # sequences


def heard_in(message: Msg, reading: Reading, tombstones: Tombstones) -> Heard | None:
    """What it says; None for what concerns no customer.  Raises UnreadableError or ValueError, and ForgottenError."""
    event = from_message(message.subject, message.headers or {}, message.data)
    heard = read(event, reading)
    if is_forgotten(tombstones, event, heard):
        raise ForgottenError
    return heard


def read_out(messages: Sequence[Msg], reading: Reading, tombstones: Tombstones) -> Readout:
    """Read a batch.  What cannot be read is counted: a letter was written when it was heard first."""
    out = Readout(messages[-1].metadata.sequence.stream, stored_ms(messages[-1]), [], forgotten=[])
    for message in messages:
        try:
            heard = heard_in(message, reading, tombstones)
        except (UnreadableError, ValueError):
            out.unreadable += 1
        except ForgottenError:
            out.forgotten.append(message.metadata.sequence.stream)
        else:
            if heard is None:
                out.others += 1
                continue
            out.customers += 1
            if heard.links:
                out.events.append((heard, (message.headers or {}).get(TRACEPARENT, "")))
    return out


def stored_ms(message: Msg) -> int:
    """When the log stored it, epoch milliseconds."""
    return round(message.metadata.timestamp.timestamp() * 1000)
