"""Replays by the mapper as a process on a real broker: planned aside, applied while it hears, killed in between."""

import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import nats
import pytest

from mapper.story import given
from shared import command, replay
from shared.command import Command, ContactUpsert, EventTrack
from shared.connector_file import parse
from shared.event import RawEvent, to_message
from shared.message import MSG_ID, Message
from shared.publish import publish
from shared.replay import Asked, Plan, Replay
from shared.trace import start

ROOT = Path(__file__).parent.parent.parent
BEFORE = (ROOT / "config/tajo.yaml").read_text()
CALL = [
    to_message(event, start())
    for event in given((ROOT / "tests/golden/voice_handled/given.ndjson").read_bytes())
]
AFTER = BEFORE.replace("SUPPORT_RESOLVED", "SOLVED").replace("SUPPORT_TICKET_COUNT", "TICKETS").replace(
    "  task.completed:", "  task.wrapup: WRAPPED_UP\n  task.completed:"
)  # fmt: skip
HAPPENED_MS = 1_795_219_200_000
HURRIED = 200  # raw events that may wait for a mapper that swaps


def call(number: int, customer: int) -> list[Message]:
    """A call of a customer."""
    made = []
    for message in CALL:
        body = message.body.replace(b"0795f31e7aca4f78bfe0a7ed4351cf09", b"%032x" % number)
        body = body.replace(b"CA42a6c262e77af15020ce15c3d94378a4", b"CA%032x" % number)
        body = body.replace(b"WR7d0fbfb819eea2aabd8a224f4b4e86af", b"WR%032x" % number)
        for mail in (b"maria.lopez", b"maria%2Elopez"):
            body = body.replace(mail, b"maria%d" % customer)
        for phone in (b"2025550101", b"12025550101"):
            body = body.replace(phone, phone[:-4] + b"%04d" % customer)
        made.append(
            Message(message.subject, body, {**message.headers, MSG_ID: f"{message.headers[MSG_ID]}-{number}"})
        )
    return made


def calls(numbers: Sequence[int], customers: int) -> list[Message]:
    return [message for number in numbers for message in call(number, number % customers)]


class Desk:
    """What whoever runs `tajo replay` does, over the wire."""

    def __init__(self, connection: nats.NATS) -> None:
        self.connection = connection

    async def bucket(self):
        return await self.connection.jetstream().key_value("replays")

    async def ask(self, mapping: str, id_: str = "r1", **more) -> None:
        asked = Asked(id=id_, mapping=mapping, at_ms=HAPPENED_MS, **more)
        bucket = await self.bucket()
        revision, _ = await replay.read(bucket, id_)
        await replay.write(bucket, Replay(asked=asked), revision)

    async def until(self, *states: str, id_: str = "r1", seconds: float = 150) -> Replay:
        deadline = time.monotonic() + seconds
        while True:
            one = (await replay.read(await self.bucket(), id_))[1]
            if one is not None and one.state in states:
                return one
            assert time.monotonic() < deadline, one
            await asyncio.sleep(0.05)

    async def change(self, id_: str = "r1", **to) -> None:
        bucket = await self.bucket()
        revision, one = await replay.read(bucket, id_)
        assert one is not None
        for name, value in to.items():
            setattr(one, name, value)
        await replay.write(bucket, one, revision)

    async def plan(self, id_: str = "r1") -> Plan:
        store = await self.connection.jetstream().object_store("plans")
        found = await store.get(id_)
        assert found.data is not None
        return replay.from_object(found.data)

    async def apply(self, id_: str = "r1") -> Replay:
        one = await self.until("planned", id_=id_)
        await self.change(id_, apply=one.plan)
        return await self.until("applied", "refused", "failed", id_=id_)

    async def tell(self, messages: Sequence[Message]) -> None:
        await publish(self.connection, messages)

    async def acked(self, *, but: int = 0) -> None:
        """Return once the mapper has acked all, but for the last so many."""
        jetstream = self.connection.jetstream()
        sequence = (await jetstream.stream_info("TWILIO")).state.last_seq
        deadline = time.monotonic() + 60
        while (await jetstream.consumer_info("TWILIO", "mapper")).ack_floor.stream_seq < sequence - but:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    async def commands(self, after: int = 0) -> list[Command]:
        """All of BREVO beyond a sequence."""
        jetstream = self.connection.jetstream()
        last = (await jetstream.stream_info("BREVO")).state.last_seq
        messages = [await jetstream.get_msg("BREVO", number) for number in range(after + 1, last + 1)]
        return [command.from_body(message.data) for message in messages]


@pytest.fixture
async def desk(nats_server):
    connection = await nats.connect(nats_server.url)
    yield Desk(connection)
    await connection.close()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tajo.yaml"
    path.write_text(BEFORE)
    return path


@pytest.fixture
def mapper(nats_server, service, file):
    process = service("mapper", TAJO_NATS_URL=nats_server.url, TAJO_CONFIG=str(file))
    process.start()
    return process


def agree(made: Plan, told: Sequence[Command]) -> None:
    """What was told is what the plan says."""
    telling = {one.ext_id for one in made.contacts if one.action in ("create", "change", "again")}
    assert sorted(one.ext_id for one in told if isinstance(one, ContactUpsert)) == sorted(telling)
    assert sorted((one.id, one.name) for one in told if isinstance(one, EventTrack)) == sorted(
        (one.id, one.name) for one in made.events if one.action == "send"
    )


async def test_an_edited_mapping_is_planned_and_applied_without_a_restart(desk, mapper, file, tmp_path):
    await desk.tell(calls(range(40), 8))
    await desk.acked()
    before = await desk.commands()

    await desk.ask(AFTER, send_old_events=True, expected=True)
    planned = await desk.until("planned")
    made = await desk.plan()

    assert len(await desk.commands()) == len(before)
    assert planned.sequence == planned.to == made.sequence == len(CALL) * 40
    assert (made.hash, made.mapping, made.mapping_before) == (
        planned.plan, parse(AFTER).hash, parse(BEFORE).hash,
    )  # fmt: skip
    assert (made.summary.change, made.summary.create, made.summary.send) == (8, 0, 40)
    assert {one.name for one in made.events} == {"WRAPPED_UP"}
    line = made.contacts[0]
    assert line.attributes == {"TICKETS": (None, 5)}
    assert line.kept == {"SUPPORT_TICKET_COUNT": 5}

    refused = await desk.apply()
    assert refused.state == "refused"
    assert "put the file there that was planned with" in refused.why
    file.write_text(AFTER)
    await desk.change(state="planned", why="", apply=planned.plan)
    applied = await desk.until("applied")
    told = (await desk.commands())[len(before) :]
    agree(made, told)
    assert applied.commands == len(told)
    assert len({one.id for one in [*before, *told]}) == len(before) + len(told)

    await desk.tell(calls([40], 8))
    await desk.acked()
    later = (await desk.commands())[len(before) + len(told) :]
    assert {one.name for one in later if isinstance(one, EventTrack)} >= {"SOLVED", "WRAPPED_UP"}
    assert [one.attributes["TICKETS"] for one in later if isinstance(one, ContactUpsert)][-1] == 6
    assert mapper.process.poll() is None
    folder = tmp_path / "data/mapper"
    assert (folder / "book.sqlite").readlink() == Path("books/r1.sqlite")
    assert {path.stat().st_mode & 0o777 for path in (folder / "books").iterdir()} == {0o600}
    await desk.change(state="dropped")
    deadline = time.monotonic() + 30
    while (folder / "books/first-book.sqlite").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert (folder / "books/r1.sqlite").exists()


async def test_a_conversation_heard_of_late_is_told_of_once_by_a_lost_book_and_by_a_replay(
    desk, mapper, file, tmp_path
):
    await desk.tell(calls(range(4), 4))
    await desk.acked()
    task = f"WT{2:032x}"
    late = RawEvent(
        id="interaction-channel.created:1", product="flex", type="interaction-channel.created",
        source="/webhooks/interactions", subject="KD" + "1" * 32, account_sid="AC" + "1" * 32, time_ms=HAPPENED_MS,
        content_type="application/x-www-form-urlencoded",
        body=f"TaskSid={task}&InteractionSid=KD{'1' * 32}&MediaChannelSid=CH{'1' * 32}".encode(),
    )  # fmt: skip
    await desk.tell([to_message(late, start())])
    await desk.acked()
    told = {one.id for one in await desk.commands() if isinstance(one, EventTrack)}
    assert f"{task}/conversation.ended/conversation.ended" in told

    await asyncio.to_thread(mapper.end)
    shutil.rmtree(tmp_path / "data/mapper")
    await asyncio.to_thread(mapper.start, ready=True)
    await desk.ask(BEFORE, send_old_events=True)
    await desk.until("planned")

    assert {one.id for one in await desk.commands() if isinstance(one, EventTrack)} == told
    assert (await desk.plan()).events == ()


async def test_a_swap_under_live_traffic_loses_and_doubles_nothing(desk, mapper, file):
    await desk.tell(calls(range(60), 12))
    await desk.acked()
    await desk.ask(AFTER, send_old_events=True)
    planned = await desk.until("planned")
    ended = asyncio.Event()

    async def traffic() -> int:
        number = 60
        while not ended.is_set():
            await desk.tell(call(number, number % 15))
            await desk.acked(but=HURRIED)  # a mapper that never catches up never swaps
            number += 1
        return number

    busy = asyncio.create_task(traffic())
    file.write_text(AFTER)
    await desk.change(apply=planned.plan)
    applied = await desk.until("applied", "refused", "failed")
    ended.set()
    count = await busy
    await desk.acked()

    assert applied.state == "applied", applied.why
    told = await desk.commands()
    events = [one for one in told if isinstance(one, EventTrack)]
    wanted = {f"WT{number:032x}/task.wrapup/task.wrapup" for number in range(count)}
    assert {one.id for one in events if one.name == "WRAPPED_UP"} == wanted
    assert len({one.id for one in events}) == len(events) == count * 4
    last = {one.ext_id: one.attributes for one in told if isinstance(one, ContactUpsert)}
    assert sorted(one["TICKETS"] for one in last.values()) == sorted(
        sum(number % (12 if number < 60 else 15) == who for number in range(count)) for who in range(15)
    )
