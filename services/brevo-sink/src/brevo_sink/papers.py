"""What is read from a command's message, and what is said of it: receipts and dead letters.  Pure but for the hour heard."""

import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg

from brevo_sink import request
from brevo_sink.desk import Item, version
from shared import command as commands
from shared import dead, receipt, span
from shared.command import ContactDelete, ContactRelink, ContactUpsert, EventTrack
from shared.message import Message
from shared.receipt import Outcome as ReceiptOutcome
from shared.receipt import Receipt, Told
from shared.spans import Cause
from shared.tombstone import Tombstones
from shared.topology import BREVO, BREVO_SINK, BREVO_SINK_PAST
from shared.trace import follow


def read(messages: Sequence[Msg]) -> tuple[list[Item], list[tuple[Msg, Message]]]:
    """The commands of a batch; and what is none, each with its dead letter."""
    items: list[Item] = []
    letters: list[tuple[Msg, Message]] = []
    for message in messages:
        position = message.metadata.sequence.stream
        try:
            command = commands.from_body(message.data)
        except msgspec.MsgspecError as error:
            letters.append((message, _dead(message, position, str(error))))
            continue
        trace = (message.headers or {}).get("traceparent", "")
        past = message.subject.startswith(commands.PAST)
        stored = (message.headers or {}).get(commands.STORED, "")
        item = Item(
            command,
            position,
            message,
            trace,
            past=past,
            heard=time.monotonic(),
            stored_ms=int(stored) if stored.isdecimal() else 0,
        )
        if said := dead.first_said(message.headers or {}, before=position):
            item.position, item.said_again = said, position
        items.append(item)
    return items, letters


class _Made(Struct):
    mapping: str = ""


_made = msgspec.json.Decoder(_Made)


def mappings(messages: Sequence[Msg]) -> set[str]:
    """The mappings that made the upserts among these; what cannot be read says none."""
    found: set[str] = set()
    for message in messages:
        with suppress(msgspec.MsgspecError):
            found.add(_made.decode(message.data).mapping)
    return found - {""}


def is_forgotten(item: Item, forgotten: Tombstones) -> bool:
    """Whether it is about somebody who was forgotten, and was said before that."""
    command = item.command
    names = (command.was, command.ext_id) if isinstance(command, ContactRelink) else (command.ext_id,)
    return forgotten.cover(names, item.position)


def told(item: Item, upsert: ContactUpsert) -> Told:
    """What Brevo knows of a contact once this upsert is delivered."""
    number, position = version(item)
    return Told(
        ext_id=upsert.ext_id,
        version=number,
        position=position,
        mapping=upsert.mapping,
        name=item.foreign_name,
        identifiers=request.fingerprint(upsert, item.without),
    )


def _told(item: Item) -> Told | None:
    match item.command:
        case ContactUpsert() as upsert:
            return told(item, upsert)
        case ContactDelete(ext_id=ext_id, version=number) | ContactRelink(ext_id=ext_id, version=number):
            return Told(ext_id=ext_id, version=number, position=item.sequence, mapping="")
        case _:
            return None


def heard(items: Sequence[Item]) -> span.Attributes:
    """What a span says of messages that are dealt with together."""
    durable = BREVO_SINK_PAST if all(item.past for item in items) else BREVO_SINK
    return span.messaging(BREVO.name, "send", "process", count=len(items), group=durable.durable)


def causes(items: Sequence[Item]) -> list[Cause]:
    """What it follows from, and of each what it is about."""
    return [Cause(item.trace, _about(item)) for item in items]


def _about(item: Item) -> span.Attributes:
    command = item.command
    sid = str(command.properties.get("task_sid", "")) if isinstance(command, EventTrack) else ""
    return {"messaging.message.id": command.id, **span.command(command.id), **span.task(sid)}


def letter(item: Item, why: str) -> Message:
    """The dead letter of a command that was refused."""
    return _dead(item.message, item.sequence, why, tries=item.tries + 1)


def _dead(message: Msg, position: int, why: str, *, tries: int = 1) -> Message:
    return dead.to_message(
        who="brevo-sink",
        why=why,
        where=f"BREVO:{position}:{message.subject}",
        msg_id=f"BREVO/{position}",
        body=message.data,
        headers=message.headers or {},
        tries=tries,
    )


def said(
    outcome: ReceiptOutcome,
    items: Sequence[Item],
    *,
    batch: str = "",
    why: str = "",
    dropped: tuple[str, ...] = (),
) -> Message:
    """The receipt of what became of items of one kind; its id is theirs, the outcome's and the call's."""
    command = items[0].command
    one = Receipt(
        outcome=outcome,
        kind=commands.kind(command),
        ids=tuple(item.command.id for item in items),
        batch=batch,
        why=why,
        dropped=dropped,
        told=_told(items[0]) if outcome == "delivered" else None,
    )
    first, last = items[0].sequence, items[-1].sequence
    return receipt.to_message(one, f"{outcome}/{first}-{last}-{len(items)}/{batch}", follow(items[0].trace))
