"""`tajo log` on a real broker: what leaves one log and enters another is the same, once, and nothing is half done."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from urllib.parse import urlencode

import msgspec
import nats
import pytest

from mapper.story import given, tell
from shared import erasure, trace
from shared.bootstrap import bootstrap, stream_config
from shared.connector_file import parse
from shared.event import RawEvent, to_message
from shared.heartbeat import Heartbeat, IngestCounts
from shared.message import MSG_ID, Message
from shared.tombstone import tombstone
from shared.topology import STATUS, TWILIO
from tajo import log_reading
from tajo.log_selection import selection

ACCOUNT = "AC0123456789abcdef0123456789abcdef"
FORM = "application/x-www-form-urlencoded"
TASK, OTHER = f"WT{1:032x}", f"WT{2:032x}"
CONVERSATION = f"CH{3:032x}"
MAIL, PHONE, NAME = "Ana.Perez@acme.example", "+4915112345678", "Ana Pérez"


def event(number: int, body: bytes, content_type: str = FORM, **other) -> Message:
    made = {
        "id": f"EV{number:032x}", "product": "taskrouter", "type": "task.created", "source": "/webhooks/taskrouter",
        "subject": TASK, "account_sid": ACCOUNT, "time_ms": 1_760_000_000_000 + number * 1000, **other,
    }  # fmt: skip
    return to_message(RawEvent(content_type=content_type, body=body, **made), trace.start())


def task_event(number: int, type_: str, task: str = TASK, **attributes) -> Message:
    fields = {
        "EventType": type_, "TaskSid": task, "TaskChannelUniqueName": "voice", "WorkerName": "ben.agent@acme.example",
        "TaskAttributes": json.dumps({"conversationSid": CONVERSATION, **attributes} if task == TASK else attributes),
    }  # fmt: skip
    return event(number, urlencode(fields).encode(), type=type_, subject=task)


def interaction() -> list[Message]:
    """One of a customer, heard from two sources, and another's."""
    who = {"customers": {"email": MAIL, "phone": PHONE, "name": NAME}, "from": PHONE, "channelType": "voice"}
    closed = urlencode({"ConversationSid": CONVERSATION, "StateTo": "closed"}).encode()
    return [
        task_event(1, "task.created", **who),
        task_event(2, "task.created", OTHER, channelType="voice", **{"from": "+4915100000002"}),
        task_event(3, "reservation.accepted", **who),
        event(4, closed, product="conversations", type="conversation-state.updated", source="/webhooks/conversations", subject=CONVERSATION),
        task_event(5, "task.completed", **{**who, "customers": {**who["customers"], "email": MAIL.lower()}}),
    ]  # fmt: skip


async def tajo(
    url: str, *arguments: str, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tajo", *arguments],
        env={**os.environ, "TAJO_NATS_URL": url, "COLUMNS": "200", **environment},
        input=stdin, capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture
def other(nats_server, free_port, tmp_path):
    """Another machine's broker."""
    server = type(nats_server)(tmp_path / "other", free_port())
    server.start()
    asyncio.run(bootstrap(server.url))
    yield server
    server.stop()


def held(messages) -> list:
    """What a log holds, without what the broker adds."""
    return [
        (
            one.subject,
            one.data,
            {k: v for k, v in one.headers.items() if k == MSG_ID or not k.startswith("Nats-")},
        )
        for one in messages
    ]


async def test_what_is_exported_and_imported_is_the_same_log_byte_by_byte(nats_server, other, tmp_path):
    dice = random.Random(7)
    bodies = [
        *(dice.randbytes(dice.randrange(200)) for _ in range(60)),
        *(urlencode({"TaskSid": TASK, "n": n, "é": "\u2028\x00 ü😀"}).encode() for n in range(60)),
        *(json.dumps({"n": n, "ü": "\u2028", "deep": [{}]}, indent=dice.choice((None, 1))).encode() for n in range(60)),
        b"", b" {} ", b'"text"', dice.randbytes(7 * 1024**2),
    ]  # fmt: skip
    said = [event(n, body, dice.choice((FORM, "application/json"))) for n, body in enumerate(bodies)]
    for message in said:  # one by one: atomic batches are of few MB
        await nats_server.say(message)
    file = tmp_path / "log.ndjson"

    exported = await tajo(nats_server.url, "log", "export", "--to", str(file), "--json")
    imported = await tajo(other.url, "log", "import", str(file), "--json")
    again = await tajo(other.url, "log", "import", "-", "--json", stdin=file.read_bytes())

    assert json.loads(exported.stdout) == {"exported": len(said), "leftOut": []}
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(imported.stdout)["stored"] == len(said), imported.stderr
    assert held(await other.messages("TWILIO")) == held(await nats_server.messages("TWILIO"))
    assert len(given(file.read_bytes())) == len(said)  # an exported file is a story's
    assert json.loads(again.stdout) == {
        "events": len(said), "repeated": 0, "known": len(said), "forgotten": 0, "stored": 0, "silent": 0
    }  # fmt: skip


async def test_an_event_the_log_has_is_not_stored_again_though_the_dedup_window_is_over(
    nats_server, tmp_path
):
    said = interaction()
    connection = await nats.connect(nats_server.url)
    stream = connection.jetstream()
    config = stream_config(TWILIO)
    config.duplicate_window = 0.1  # seconds
    await stream.update_stream(config)
    await nats_server.say(*said)
    file = tmp_path / "log.ndjson"
    await tajo(nats_server.url, "log", "export", "--to", str(file))
    deadline = time.monotonic() + 60
    probe = event(99, b"")
    while True:  # until the broker has forgotten what it heard
        first = await stream.publish(probe.subject, b"", headers=probe.headers)
        if not first.duplicate and (await stream.stream_info("TWILIO")).state.messages > len(said) + 1:
            break
        assert time.monotonic() < deadline
    await connection.close()
    before = held(await nats_server.messages("TWILIO"))

    imported = await tajo(nats_server.url, "log", "import", str(file), "--json")

    assert json.loads(imported.stdout)["known"] == len(said)
    assert held(await nats_server.messages("TWILIO")) == before


async def test_an_import_killed_in_the_middle_is_done_by_doing_it_again(nats_server, other, tmp_path):
    said = [event(n, b"x" * 500) for n in range(4000)]
    await nats_server.say(*said)
    file = tmp_path / "log.ndjson"
    await tajo(nats_server.url, "log", "export", "--to", str(file))
    connection = await nats.connect(other.url)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tajo", "log", "import", str(file),
        env={**os.environ, "TAJO_NATS_URL": other.url}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    stored = connection.jetstream().stream_info
    while process.returncode is None and not (await stored("TWILIO")).state.messages:
        pass
    process.kill()
    await process.wait()
    at_the_kill = (await connection.jetstream().stream_info("TWILIO")).state.messages
    await connection.close()

    again = json.loads((await tajo(other.url, "log", "import", str(file), "--json")).stdout)

    assert again["known"] + again["stored"] == len(said)
    assert again["known"] >= at_the_kill > 0
    ids = [one.headers[MSG_ID] for one in await other.messages("TWILIO")]
    assert ids == [message.headers[MSG_ID] for message in said]


async def test_one_line_that_is_wrong_and_nothing_is_stored(nats_server, tmp_path):
    await nats_server.say(*interaction())
    good = (await tajo(nats_server.url, "log", "export")).stdout.splitlines()
    large = json.loads(good[0]) | {"data": "x" * (9 * 1024**2)}
    lines = [
        good[0], b"", good[1][:-30], json.dumps(json.loads(good[2]) | {"specversion": "0.3"}).encode(),
        json.dumps(json.loads(good[2]) | {"subject": 7}).encode(), json.dumps(large).encode(),
        b"x" * (17 * 1024**2), good[3],
    ]  # fmt: skip
    file = tmp_path / "wrong.ndjson"
    file.write_bytes(b"\n".join(lines))

    refused = await tajo(nats_server.url, "log", "import", str(file))
    as_json = await tajo(nats_server.url, "log", "import", str(file), "--json")

    told = refused.stderr.decode()
    assert (refused.returncode, as_json.returncode) == (1, 1)
    for line, why in (
        (3, "not a whole JSON object"), (4, "specversion"), (5, r"Expected `str`, got `int` - at `$.subject`"),
        (6, "larger than the 8 MiB"), (7, "longer than 16 MiB"),
    ):  # fmt: skip
        assert f"{file}:{line}: " in told
        assert why in told
    assert "5 lines cannot be read; nothing was stored" in told
    assert [one["line"] for one in json.loads(as_json.stdout)["lines"]] == [3, 4, 5, 6, 7]
    assert len(await nats_server.messages("TWILIO")) == 5


async def test_an_id_twice_in_a_file_is_stored_once_the_first(nats_server, other):
    await nats_server.say(event(1, b"first"))
    line = (await tajo(nats_server.url, "log", "export")).stdout
    second = json.dumps(json.loads(line) | {"data": "second"}).encode()

    done = await tajo(other.url, "log", "import", "-", "--json", stdin=line + second)

    told = json.loads(done.stdout)
    assert (told["events"], told["repeated"], told["known"], told["stored"]) == (2, 1, 0, 1)
    (stored,) = await other.messages("TWILIO")
    assert stored.data == b"first"


async def test_a_log_on_which_services_are_at_work_is_left_alone_unless_told(nats_server, other):
    await nats_server.say(*interaction())
    lines = (await tajo(nats_server.url, "log", "export")).stdout
    now = datetime.now(UTC).isoformat()
    beat = Heartbeat(
        service="mapper", instance="m-1", version="1", role="working", since=now, counts=msgspec.to_builtins(IngestCounts())
    )  # fmt: skip
    connection = await nats.connect(other.url)
    bucket = await connection.jetstream().key_value(STATUS.name)
    await bucket.put("mapper.m-1", msgspec.json.encode(beat))
    await connection.close()

    refused = await tajo(other.url, "log", "import", "-", stdin=lines)
    told = await tajo(other.url, "log", "import", "-", "--yes", stdin=lines)

    assert refused.returncode == 1
    assert b"services are at work on this log: mapper" in refused.stderr
    assert told.returncode == 0, told.stderr
    assert len(await other.messages("TWILIO")) == 5


async def test_of_somebody_who_was_forgotten_nothing_of_before_comes_in_and_it_is_said(nats_server, other):
    unreadable = event(6, f"{MAIL} wrote".encode(), "application/json")
    said = [*interaction(), unreadable, task_event(7, "task.updated", customers={"email": MAIL})]
    await nats_server.say(*said)
    lines = (await tajo(nats_server.url, "log", "export")).stdout
    connection = await nats.connect(other.url)
    key = await erasure.key(connection)
    await erasure.ask(connection, erasure.Asked(id="e1", whom=(), asked_ms=0))
    names = (f"email:{MAIL.lower()}", CONVERSATION)
    await erasure.bury(connection, tombstone(key, "e1", names, 1_760_000_000_000 + 6000))
    await connection.close()

    done = await tajo(other.url, "log", "import", "-", "--json", stdin=lines)
    again = await tajo(other.url, "log", "import", "-", stdin=lines)

    assert json.loads(done.stdout) == {
        "events": 7, "repeated": 0, "known": 0, "forgotten": 5, "stored": 2, "silent": 0
    }  # fmt: skip
    ids = [one.headers[MSG_ID] for one in await other.messages("TWILIO")]
    assert ids == [said[1].headers[MSG_ID], said[6].headers[MSG_ID]]  # another's, and what happened later
    assert b"0 of 7 stored; 2 were in the log already" in again.stdout
    assert b"5 left out: they happened to somebody before they were forgotten here" in again.stdout


async def test_what_was_removed_within_the_dedup_window_is_said_not_to_be_stored(nats_server):
    await nats_server.say(*interaction())
    lines = (await tajo(nats_server.url, "log", "export")).stdout
    connection = await nats.connect(nats_server.url)
    await connection.jetstream().purge_stream("TWILIO")
    await connection.close()

    done = await tajo(nats_server.url, "log", "import", "-", stdin=lines)

    assert done.returncode == 1
    assert b"5 were not stored" in done.stderr


async def test_a_selection_is_what_it_says(nats_server):
    await nats_server.say(*interaction())
    connection = await nats.connect(nats_server.url)

    async def meant(last: int = 20, **options) -> list[int]:
        found = await log_reading.latest(connection, selection(**options), last, headers_only=True)
        return [one.sequence for one in found]

    assert await meant() == [1, 2, 3, 4, 5]
    assert await meant(last=2) == [4, 5]
    assert await meant(sequence="2..3") == [2, 3]
    assert await meant(sequence="4..") == [4, 5]
    assert await meant(subjects=["twilio.*.*.conversations.>"]) == [4]
    assert await meant(since="2025-10-09T08:53:23Z", until="2025-10-09T08:53:25Z") == [3, 4]
    assert await meant(task=[CONVERSATION]) == [1, 3, 4, 5]  # the whole interaction, whoever names it
    assert await meant(task=[OTHER], sequence="..1") == []
    await connection.close()
    words = (
        "--subjects", "twilio.*.*.taskrouter.>", "--since", "2025-10-09T08:53:22Z", "--until", "2025-10-09T08:53:26Z",
        "--sequence", "1..5", "--task", CONVERSATION, "--last", "1", "--json",
    )  # fmt: skip
    done = await tajo(nats_server.url, "log", "ls", *words)
    assert [one["sequence"] for one in json.loads(done.stdout)["events"]] == [5], done.stderr


async def test_subjects_the_broker_does_not_take_are_wrong_usage(nats_server):
    await nats_server.say(event(1, b""))
    subjects = ("--subjects", "twilio.>", "--subjects", "twilio.*.*.flex.>")

    done = await tajo(nats_server.url, "log", "ls", *subjects)

    assert done.returncode == 2
    assert b"overlap" in done.stderr


async def test_one_is_shown_by_sequence_and_by_id_with_its_trace(nats_server):
    said = interaction()
    await nats_server.say(*said)

    by_id = await tajo(nats_server.url, "log", "show", said[2].headers[MSG_ID])
    by_sequence = json.loads((await tajo(nats_server.url, "log", "show", "3", "--json")).stdout)
    nothing = await tajo(nats_server.url, "log", "show", "EV1")

    assert f'"email": "{MAIL}"' in by_id.stdout.decode()
    assert by_sequence["traceId"] == said[2].headers["traceparent"].split("-")[1]
    assert by_sequence["body"].encode() == said[2].body
    assert nothing.returncode == 1
    assert (await tajo("nats://127.0.0.1:9", "log", "ls")).returncode == os.EX_UNAVAILABLE


async def test_what_is_redacted_names_nobody_and_belongs_together_as_before(nats_server):
    await nats_server.say(*interaction())
    mapping = parse(
        "field_mapping: {attributes.email: email, attributes.phone: SMS, friendly_name: FIRSTNAME, total_conversations: N}\n"
        "event_mapping: {task.created: ASKED, task.completed: SOLVED, conversation.ended: ENDED}\n"
    )

    plain = (await tajo(nats_server.url, "log", "export")).stdout
    redacted = (await tajo(nats_server.url, "log", "export", "--redact")).stdout

    for told in (MAIL, MAIL.lower(), "Ana", "15112345678", "ben.agent", "acme.example"):
        for line in redacted.splitlines():
            assert told not in json.dumps(json.loads(line), ensure_ascii=False)
            assert told not in str(json.loads(line).get("data"))
    before, after = tell(mapping, given(plain)), tell(mapping, given(redacted))
    assert [event.id for event in after.events] == [event.id for event in before.events]
    assert len(after.contacts) == len(before.contacts) == 2
    assert {len(one.attributes) for one in after.contacts.values()} == {
        len(one.attributes) for one in before.contacts.values()
    }


async def test_what_has_a_broken_envelope_is_left_out_and_said(nats_server):
    await nats_server.say(event(1, b"a"), Message("twilio.AC1.00.flex.x", b"b", {MSG_ID: "broken"}))

    done = await tajo(nats_server.url, "log", "export")
    listed = await tajo(nats_server.url, "log", "ls", "--json")

    assert done.returncode == 1
    assert b"1 left out, because their envelope is broken: 2" in done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert len(json.loads(listed.stdout)["events"]) == 2


async def test_an_export_that_cannot_be_written_leaves_what_was_there(nats_server, tmp_path):
    (tmp_path / "there").mkdir()

    done = await tajo(nats_server.url, "log", "export", "--to", str(tmp_path / "there"))

    assert done.returncode == 1
    assert b"cannot be written" in done.stderr
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("there")] == ["there"]
