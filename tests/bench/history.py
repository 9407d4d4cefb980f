"""A log of raw events as ingest writes them, as long as asked: some contacts are told once, as TaskRouter, Conversations and
a survey tell them, and then each again and again with other sids, another customer and another time.

What ingest makes of the webhooks is made by ingest's own judgement; what differs from one telling to the next is cut
out of the text once, so that a million events are made in less time than it takes to store them.
"""

import asyncio
import heapq
import itertools
import json
import random
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import urlsplit

import nats
from nats.js.api import DeliverPolicy

from ingest.judge import Heard, Judge
from sandbox.flex import OUR_NUMBER
from sandbox.traffic import Person, contact
from sandbox.twilio import (
    Webhook,
    conversation_webhook,
    sid,
    stream_webhook,
    survey_webhook,
    taskrouter_webhook,
)
from shared import trace
from shared.bootstrap import consumer_config
from shared.event import epoch_ms, rfc3339, shard
from shared.message import Message
from shared.topology import MAPPER

BATCH = 1000  # messages of an atomic batch, the most the server takes (ADR-50)
TEMPLATES = 64  # contacts told once
APART_MS = 800  # from one contact's beginning to the next's: some hundred are open at once, a million events are a day
CUSTOMER = 7_777_777  # stands in for the customer's number
_SLOT = re.compile(
    rf"((?:WT|WR|CA|EV|CH|KD|KG|UO|IM|MB|TT)[0-9a-f]{{32}}|{CUSTOMER}|\b1\d{{12}}\b|\b1\d{{9}}\b"
    r"|2026-11-\d\dT\d\d(?::|%3A)\d\d(?::|%3A)\d\d\.\d{3}Z)"
)


@dataclass(frozen=True)
class Told:
    """One message of a contact, cut at what differs from one contact to the next: text, slot, text, slot, …, text."""

    at_ms: int
    entity: str  # whose shard the subject names
    subject: tuple[str, str]  # before and after the shard
    head: tuple[str, ...]  # the headers' lines
    body: tuple[str, ...]


Raw = tuple[str, str, str]  # subject, header lines, body


@dataclass(frozen=True)
class Contact:
    """The messages of one contact, in order, and all that stands in their slots."""

    messages: list[Told]
    slots: frozenset[str]


def events(count: int, customers: int, dice: random.Random) -> Iterator[Raw]:
    """So many raw events of so many customers (as far as there are contacts for them), in the order they happen."""
    told = _told(dice)
    contacts = count * len(told) / sum(len(one.messages) for one in told)
    waiting: list[tuple[int, int, Told, dict[str, str]]] = []
    tie = itertools.count()
    begins_ms = told[0].messages[0].at_ms
    made = known = 0
    for number in itertools.count():
        while waiting and waiting[0][0] <= begins_ms:
            _, _, message, slots = heapq.heappop(waiting)
            yield _filled(message, slots)
            made += 1
            if made == count:
                return
        customer = dice.randrange(known) if known else 0  # who comes back
        if number * customers / contacts >= known:  # else somebody new
            customer, known = known, min(known + 1, customers)
        one = told[dice.randrange(TEMPLATES)]
        later_s = (begins_ms - one.messages[0].at_ms) // 1000
        slots = {slot: _other(slot, number, customer, later_s) for slot in one.slots}
        for message in one.messages:
            heapq.heappush(waiting, (message.at_ms + later_s * 1000, next(tie), message, slots))
        begins_ms += APART_MS


def _other(slot: str, number: int, customer: int, later_s: int) -> str:
    """What stands there in this contact."""
    match slot[0]:
        case "7":
            return f"{customer:07d}"
        case "1":
            return str(int(slot[:10]) + later_s) + slot[10:]
        case "2":
            moved = f"{_clock(_seconds(slot) + later_s)}{slot[-5:]}"
            return moved.replace(":", "%3A") if "%" in slot else moved
        case _:
            return f"{slot[:2]}{number:08x}{slot[10:]}"


@lru_cache
def _seconds(slot: str) -> int:
    return epoch_ms(slot.replace("%3A", ":")) // 1000


@lru_cache(maxsize=4096)
def _clock(seconds: int) -> str:
    return rfc3339(seconds * 1000)[:-5]


def _filled(one: Told, slots: dict[str, str]) -> Raw:
    entity = slots[one.entity]
    return (
        f"{one.subject[0]}{shard(entity)}{one.subject[1]}",
        _joined(one.head, slots),
        _joined(one.body, slots),
    )


def _joined(parts: tuple[str, ...], slots: dict[str, str]) -> str:
    filled = list(parts)
    filled[1::2] = map(slots.__getitem__, parts[1::2])
    return "".join(filled)


# -- contacts, told once --------------------------------------------------------------------------------------


def _told(dice: random.Random) -> list[Contact]:
    judge = Judge(public_url="", tokens=(), account_sid="", keep_bodies=False)
    made = []
    for number in range(TEMPLATES):
        one = []
        for webhook in _webhooks(number, dice):
            heard = Heard(webhook.route, "POST", b"", webhook.body, "", webhook.moments[0])
            holds, messages = judge.keep(heard, trace.start())
            assert not holds.unreadable
            one += [_cut(message, webhook.moments[0]) for message in messages]
        one.sort(key=lambda message: message.at_ms)
        slots = {slot for message in one for part in (message.head, message.body) for slot in part[1::2]}
        made.append(Contact(one, frozenset(slots | {message.entity for message in one})))
    return made


def _cut(message: Message, at_ms: int) -> Told:
    account, _, rest = message.subject.removeprefix("twilio.").split(".", 2)
    lines = "".join(f"{name}: {value}\r\n" for name, value in message.headers.items())
    return Told(
        at_ms,
        message.headers["ce-subject"],
        (f"twilio.{account}.", f".{rest}"),
        tuple(_SLOT.split(lines)),
        tuple(_SLOT.split(message.body.decode())),
    )


def _webhooks(number: int, dice: random.Random) -> Iterator[Webhook]:
    """One contact.  A quarter is heard from Event Streams, the rest from callbacks; who writes has a conversation."""
    person = Person(CUSTOMER)
    happened = contact(person, number, dice)
    for event in happened:
        yield stream_webhook([event], "") if number % 4 == 3 else taskrouter_webhook(event, "")
    first, last = happened[0], happened[-1]
    if person.starts[0][1] != "voice":
        yield from _conversation(
            f"contact {number}", person, person.starts[0][1], first.time_ms, last.time_ms
        )
    if last.type == "task.completed" and number % 5 == 0:
        yield survey_webhook(
            "", last.time_ms + 60_000, task_sid=last.fields["task_sid"], score=dice.randint(1, 5)
        )


def _conversation(name: str, person: Person, channel: str, from_ms: int, to_ms: int) -> Iterator[Webhook]:
    conversation = sid("CH", name)
    address = {"sms": person.phone, "whatsapp": f"whatsapp:{person.phone}"}.get(channel, "")
    bound = (
        {"MessagingBinding_Address": address, "MessagingBinding_ProxyAddress": OUR_NUMBER} if address else {}
    )
    yield conversation_webhook(
        "", "onConversationAdded", from_ms - 1500, ConversationSid=conversation, State="active", **bound
    )
    yield conversation_webhook(
        "", "onMessageAdded", from_ms - 1000, ConversationSid=conversation, Index="0", Body="Hola & gracias",
        Author=address or person.email, MessageSid=sid("IM", name), ParticipantSid=sid("MB", name),
    )  # fmt: skip
    yield conversation_webhook(
        "", "onConversationStateUpdated", to_ms - 500, ConversationSid=conversation,
        StateFrom="active", StateTo="closed", Reason="API",
    )  # fmt: skip


# -- storing --------------------------------------------------------------------------------------------------


async def store(url: str, raw: Iterator[Raw], on_stored: Callable[[int], None] = lambda _: None) -> int:
    """Publish all of them as atomic batches, each on disk before the next; the stream's last sequence.

    Over a bare socket: nats-py would take longer than the broker.  https://docs.nats.io/reference/reference-protocols/nats-protocol
    """
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    await reader.readline()  # INFO
    writer.write(
        b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\nSUB ack 1\r\nPING\r\n'
    )
    sequence = 0
    try:
        while batch := list(itertools.islice(raw, BATCH)):
            id_ = secrets.token_hex(8)
            for number, (subject, lines, body) in enumerate(batch, 1):
                last = number == len(batch)
                commit = "Nats-Batch-Commit: 1\r\n" if last else ""
                head = f"NATS/1.0\r\n{lines}Nats-Batch-Id: {id_}\r\nNats-Batch-Sequence: {number}\r\n{commit}\r\n".encode()
                data = body.encode()
                to = f"{subject} ack" if last else subject
                writer.write(
                    f"HPUB {to} {len(head)} {len(head) + len(data)}\r\n".encode() + head + data + b"\r\n"
                )
            await writer.drain()
            sequence = await _acked(reader, writer, len(batch))
            on_stored(len(batch))
    finally:
        writer.close()
    return sequence


async def _acked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int) -> int:
    while True:
        line = await reader.readline()
        if line.startswith(b"PING"):
            writer.write(b"PONG\r\n")
        elif line.startswith((b"MSG", b"HMSG")):
            ack = json.loads((await reader.readexactly(int(line.split()[-1]) + 2)).split(b"\r\n")[-2])
            if ack.get("count") != count:
                raise RuntimeError(f"the broker did not take a batch: {ack}")
            return int(ack["seq"])
        elif not line or line.startswith(b"-ERR"):
            raise RuntimeError(f"the broker ended the connection: {line!r}")


async def heard_up_to(url: str, sequence: int) -> None:
    """Make the mapper's durable as if it had acked all up to a sequence: then a mapper without a book makes it anew of that."""
    connection = await nats.connect(url)
    jetstream = connection.jetstream()
    await jetstream.delete_consumer(MAPPER.stream, MAPPER.durable)
    config = replace(
        consumer_config(MAPPER), deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=sequence + 1
    )
    info = await jetstream.add_consumer(MAPPER.stream, config)
    await connection.close()
    floor = info.ack_floor.stream_seq if info.ack_floor else 0
    if floor != sequence:
        raise RuntimeError(f"the broker begins a durable with {floor} acked, not {sequence}")
