"""The mapper as a process on a real broker: what it hears, what it says, and what a crash leaves."""

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import msgspec
import nats
import pytest

from mapper.story import given
from shared import bus, command
from shared.bus import Publisher
from shared.command import ContactUpsert, EventTrack
from shared.event import to_message
from shared.message import MSG_ID, Message
from shared.trace import start

ROOT = Path(__file__).parent.parent.parent
TOLD = ("task.created/task.created", "task.completed/task.completed", "conversation.ended/conversation.ended")
STORIES = ROOT / "tests/golden"


@pytest.fixture
def mapper(nats_server, service):
    process = service("mapper", TAJO_NATS_URL=nats_server.url)
    process.start()
    return process


async def tell(url: str, messages: list[Message]) -> None:
    broker = bus.connect(url, service="test")
    await broker.connect()
    await Publisher(broker).publish(messages)
    await broker.stop()


async def stored(url: str, stream: str, count: int) -> list:
    """The messages of a stream once there are `count`, in order."""
    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        deadline = time.monotonic() + 25
        while (await jetstream.stream_info(stream)).state.messages < count:
            assert time.monotonic() < deadline, f"{stream} holds fewer than {count}"
            await asyncio.sleep(0.05)
        state = (await jetstream.stream_info(stream)).state
        return [await jetstream.get_msg(stream, seq) for seq in range(1, state.last_seq + 1)]
    finally:
        await connection.close()


async def acked(url: str) -> None:
    """Return when the mapper has acked all that the log holds."""
    connection = await nats.connect(url)
    try:
        sequence = (await connection.jetstream().stream_info("TWILIO")).state.last_seq
        deadline = time.monotonic() + 25
        while (
            await connection.jetstream().consumer_info("TWILIO", "mapper")
        ).ack_floor.stream_seq < sequence:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


def heard(story: str) -> list[Message]:
    return [to_message(event, start()) for event in given((STORIES / story / "given.ndjson").read_bytes())]


async def test_a_command_of_now_says_when_the_log_had_its_cause_and_one_of_the_past_does_not(
    nats_server, mapper
):
    now = round(time.time() * 1000)
    events = given((STORIES / "voice_handled/given.ndjson").read_bytes())
    later_ms = now - max(event.time_ms for event in events)
    of_now = [msgspec.structs.replace(event, time_ms=event.time_ms + later_ms) for event in events]

    await tell(nats_server.url, [to_message(event, start()) for event in of_now])
    await acked(nats_server.url)
    told = await stored(nats_server.url, "BREVO", 4)

    for message in told:
        is_past = message.subject.startswith(command.PAST)
        said = (message.headers or {}).get(command.STORED)
        assert (said is None) == is_past
        assert said is None or now - 1000 <= int(said) <= time.time() * 1000
    assert any(command.STORED in message.headers for message in told)


async def test_a_call_becomes_a_contact_and_then_its_events_in_the_same_trace(nats_server, mapper):
    messages = heard("voice_handled")

    await tell(nats_server.url, messages)
    await acked(nats_server.url)
    told = await stored(nats_server.url, "BREVO", 4)

    commands = [command.from_body(message.data) for message in told]
    assert isinstance(commands[0], ContactUpsert)
    assert commands[0].email == "maria.lopez@example.com"
    assert {c.name for c in commands if isinstance(c, EventTrack)} == {
        "SUPPORT_REQUESTED",
        "SUPPORT_RESOLVED",
        "CONVERSATION_ENDED",
    }
    traces = {message.headers["traceparent"].split("-")[1] for message in messages}
    assert {message.headers["traceparent"].split("-")[1] for message in told} <= traces


async def test_what_cannot_be_read_is_a_dead_letter_and_holds_up_nobody(nats_server, mapper):
    call = heard("voice_handled")
    garbled = Message(
        "twilio.AC1.01.taskrouter.task.created", b"\xff\xfe{", {**call[0].headers, MSG_ID: "EVbad"}
    )
    naked = Message("twilio.AC1.01.taskrouter.task.created", b"{}", {MSG_ID: "EVnaked"})

    await tell(nats_server.url, [garbled, naked, *call])
    letters = await stored(nats_server.url, "DEAD", 2)
    told = await stored(nats_server.url, "BREVO", 4)

    assert [letter.data for letter in letters] == [b"\xff\xfe{", b"{}"]
    assert letters[0].headers["Tajo-Dead-Who"] == "mapper"
    assert letters[0].headers["Tajo-Dead-Where"] == f"TWILIO:1:{garbled.subject}"
    assert letters[0].headers["Tajo-Dead-Why"] == "not a form: UnicodeDecodeError"
    assert letters[1].headers["Tajo-Dead-Why"].startswith("the envelope lacks the header ce-")
    assert len({message.headers[MSG_ID] for message in told}) == len(told)


def many(calls: int) -> list[Message]:
    """As many calls of one customer."""
    made = []
    for call in range(calls):
        for message in heard("voice_handled"):
            body = message.body.replace(b"0795f31e7aca4f78bfe0a7ed4351cf09", b"%032x" % call)
            body = body.replace(b"CA42a6c262e77af15020ce15c3d94378a4", b"CA%032x" % call)
            body = body.replace(b"WR7d0fbfb819eea2aabd8a224f4b4e86af", b"WR%032x" % call)
            made.append(
                Message(
                    message.subject, body, {**message.headers, MSG_ID: f"{message.headers[MSG_ID]}-{call}"}
                )
            )
    return made


async def said(url: str, after: int = 0) -> tuple[list[ContactUpsert], list[EventTrack]]:
    """The commands beyond a sequence of BREVO."""
    told = [command.from_body(message.data) for message in (await stored(url, "BREVO", 1))[after:]]
    upserts = [one for one in told if isinstance(one, ContactUpsert)]
    return upserts, [one for one in told if isinstance(one, EventTrack)]


async def test_a_book_that_is_lost_is_made_anew_from_the_log_before_anything_is_heard(
    nats_server, mapper, service, tmp_path
):
    calls, rest = many(120), many(125)[-5 * len(heard("voice_handled")) :]
    for story in (
        "webchat_known_by_mail",
        "web_chat_nobody_until_the_agent_asks",
        "whatsapp_closed_before_its_task_was_heard",
    ):
        calls += heard(story)
    await tell(nats_server.url, calls)
    await acked(nats_server.url)
    mapper.end(signal.SIGKILL)
    before = await said(nats_server.url)
    await tell(nats_server.url, rest)
    number = len(before[0]) + len(before[1])

    shutil.rmtree(tmp_path / "data/mapper")
    await asyncio.to_thread(mapper.start, ready=True)
    await acked(nats_server.url)
    log = await asyncio.to_thread(mapper.end)
    contacts, events = await said(nats_server.url, number)

    assert b"book_rebuilt" in log
    shown = {one.ext_id: (one.email, one.attributes, one.list_ids) for one in before[0]}
    again = {one.ext_id: (one.email, one.attributes, one.list_ids) for one in contacts}
    assert again.keys() <= shown.keys()
    changed = {ext_id for ext_id in again if again[ext_id] != shown[ext_id]}
    assert [again[ext_id][1]["SUPPORT_TICKET_COUNT"] for ext_id in changed] == [125]
    assert len(contacts) <= len(shown) + 5  # and not one for each that was said on the way
    ids = Counter(one.id for one in [*before[1], *events])
    assert ids.keys() == {one.id for one in before[1]} | {
        f"WT{n:032x}/{t}" for n in range(120, 125) for t in TOLD
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_stopped_mid_way_and_started_again_it_says_each_event_once(nats_server, mapper, number):
    calls = many(300)
    telling = asyncio.create_task(tell(nats_server.url, calls))
    await stored(nats_server.url, "BREVO", 20)
    mapper.end(number)
    mapper.start()
    await telling
    await acked(nats_server.url)
    told, ids = [], []
    deadline = (
        time.monotonic() + 25
    )  # what a kill left unacked comes 10 s late, and what missed it waits as long
    while len(ids) < 900:
        assert time.monotonic() < deadline
        told = [command.from_body(message.data) for message in await stored(nats_server.url, "BREVO", 901)]
        ids = [one.id for one in told if isinstance(one, EventTrack)]
    assert len(ids) == len(set(ids)) == 900
    last = [one for one in told if isinstance(one, ContactUpsert)][-1]
    assert last.attributes["SUPPORT_TICKET_COUNT"] == 300


async def test_an_unusable_connector_file_is_named_with_its_line_and_ends_the_process(service, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("event_mapping:\n  task.cancelled: X\n")
    mapper = service("mapper", TAJO_CONFIG=str(bad))

    mapper.start()
    errors = await asyncio.to_thread(mapper.ended)

    assert mapper.process.returncode == os.EX_CONFIG
    assert b"line 2, column 3: no event is called 'task.cancelled'; did you mean task.canceled?" in errors


async def test_a_disabled_connector_waits_and_goes_on_once_it_is_enabled(nats_server, service, tmp_path):
    enabled = (ROOT / "config/tajo.yaml").read_text()
    disabled = tmp_path / "disabled.yaml"
    disabled.write_text(enabled.replace("enabled: true", "enabled: false"))
    mapper = service("mapper", TAJO_NATS_URL=nats_server.url, TAJO_CONFIG=str(disabled))
    await tell(nats_server.url, heard("voice_handled"))

    await asyncio.to_thread(mapper.start, ready=True)
    said = await asyncio.to_thread(mapper.end)

    assert b"connector_disabled" in said
    disabled.write_text(enabled)
    await asyncio.to_thread(mapper.start, ready=True)
    first = (await stored(nats_server.url, "BREVO", 4))[0]
    assert first.time.timestamp() > disabled.stat().st_mtime
