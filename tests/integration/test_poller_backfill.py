"""Backfills as somebody asks for them with `tajo connectors sync`, the poller a process, Twilio over the wire."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import msgspec
import nats
import pytest

from poller.items import read_events
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.items import CHAT_SERVICE_SID, Conversation
from sandbox.rest import LIMITS, TwilioSandbox
from sandbox.task import at
from sandbox.traffic import conversations, traffic
from sandbox.twilio import ACCOUNT_SID
from shared import backfill
from shared.backfill import Asked
from shared.event import RawEvent, to_message
from shared.publish import publish
from shared.topology import BACKFILLS, CURSORS
from tajo import sync

PRODUCTS = ("FLEX", "TASKROUTER", "CONVERSATIONS", "EVENTS")
TOKEN = "token-of-twilio"
PEOPLE, EVENTS = traffic(2000, random.Random(5))
CONTACTS = sum(len(person.starts) for person in PEOPLE)
CONVERSATIONS = conversations(PEOPLE, CONTACTS, 20)
END_S = max(event.time_ms for event in EVENTS) / 1000 + 60
SINCE = "2026-11-20"
DAY_MS = 24 * 3600 * 1000


def twilio_of(**how) -> TwilioSandbox:
    return TwilioSandbox(token=TOKEN, **{"events": list(EVENTS), "conversations": list(CONVERSATIONS), **how},
                         clock=lambda: END_S)  # fmt: skip


@pytest.fixture
def poller(nats_server, service, tmp_path):
    """`poller(url)`: a poller that polls nothing of the past by itself."""

    def make(url: str, told: str = "resources: [tasks], look_back_s: 0"):
        config = tmp_path / "tajo.yaml"
        config.write_text(
            f"connectors: {{twilio_flex: {{poller: {{interval_s: 0.5, overlap_s: 0, {told}}}}}}}\n"
        )
        return service(
            "poller",
            TAJO_NATS_URL=nats_server.url,
            TWILIO_ACCOUNT_SID=ACCOUNT_SID,
            TWILIO_AUTH_TOKEN=TOKEN,
            TAJO_CONFIG=str(config),
            **{f"TAJO_TWILIO_{name}_URL": f"{url}/twilio/{name.lower()}" for name in PRODUCTS},
        )

    return make


def tajo(url: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tajo", "connectors", *words],
        env={**os.environ, "TAJO_NATS_URL": url, "COLUMNS": "120", "NO_COLOR": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


async def ran(url: str, *words: str) -> tuple[int, str, str]:
    process = tajo(url, *words)
    out, err = await asyncio.to_thread(process.communicate, timeout=90)
    return process.returncode, out, err


async def stored(url: str) -> Counter:
    """How often each kind of raw event is in the log."""
    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        subscription = await jetstream.subscribe("", stream="TWILIO", ordered_consumer=True)
        count = (await jetstream.stream_info("TWILIO")).state.messages
        messages = [await subscription.next_msg() for _ in range(count)]
        return Counter(message.headers["ce-id"] for message in messages)
    finally:
        await connection.close()


def kinds(ids: Counter) -> Counter:
    """By what comes before the sid; an event's own sid is `EV`."""
    return Counter(id_.partition(":")[0] if ":" in id_ else id_[:2] for id_ in ids)


async def test_a_sync_reads_the_past_once_says_how_much_and_the_next_reads_only_what_is_new(
    nats_server, poller
):
    twilio = twilio_of(shuffled=True)
    later = [event for event in EVENTS if event.time_ms > (END_S - 600) * 1000]
    twilio.events = [event for event in EVENTS if event not in later]
    async with serving(BrevoSandbox(), twilio) as url:
        await asyncio.to_thread(poller(url).start, ready=True)
        words = ("sync", "twilio-flex", "--json", "--since", SINCE)
        code, out, err = await ran(nats_server.url, *words, "--type", "full")

        assert (code, err) == (0, "")
        tasks, made = json.loads(out)
        assert (tasks["resource"], tasks["state"], tasks["new"]) == ("tasks", "done", len(twilio.events))
        assert (made["resource"], made["state"]) == ("conversations", "done")
        log = await stored(nats_server.url)
        assert set(log.values()) == {1}
        closed = len(CONVERSATIONS)
        assert kinds(log) == {
            "EV": len(twilio.events), "conversation.added": closed, "conversation.closed": closed,
            "participant.added": 2 * closed,
        }  # fmt: skip

        twilio.events += later
        asked = twilio.answered.total()
        code, out, _ = await ran(nats_server.url, *words, "--type", "incremental")
        tasks, made = json.loads(out)
        assert code == 0
        assert tasks["read"] < 1000
        assert twilio.answered.total() - asked < 30
        assert set((await stored(nats_server.url)).values()) == {1}


async def test_only_the_channels_asked_for_are_read_and_later_the_others(nats_server, poller):
    async with serving(BrevoSandbox(), twilio_of()) as url:
        await asyncio.to_thread(poller(url, "resources: [workers], look_back_s: 0").start, ready=True)
        words = ("sync", "twilio-flex", "--json", "--since", SINCE, "--type", "full")
        await ran(nats_server.url, *words, "--channels", "sms,webchat")
        some = await stored(nats_server.url)

        wanted = [one for one in CONVERSATIONS if _channel(one) in ("sms", "webchat")]
        assert 0 < len(wanted) < len(CONVERSATIONS)
        assert kinds(some)["conversation.added"] == len(wanted)
        assert kinds(some)["participant.added"] == 2 * len(wanted)
        tasks = {event.sid for event in EVENTS if _kind(event) in ("sms", "web")}
        assert {id_ for id_ in some if id_.startswith("EV")} == tasks

        await ran(nats_server.url, *words)
        assert kinds(await stored(nats_server.url))["EV"] == len(EVENTS)


def _channel(one: Conversation) -> str:
    binding = one.participants[0].get("messaging_binding")
    return binding["type"] if binding else "webchat"


def _kind(event) -> str:
    return event.fields["task_attributes"].get("channelType", "voice")


async def test_interrupted_it_stops_and_the_same_command_goes_on_from_there(nats_server, poller):
    twilio = twilio_of()
    twilio.faults.append(Fault("latency", seconds=0.3, path="/twilio/taskrouter", times=None))
    async with serving(BrevoSandbox(), twilio) as url:
        await asyncio.to_thread(poller(url, "resources: [workers], look_back_s: 0").start, ready=True)
        words = (
            "sync",
            "twilio-flex",
            "--json",
            "--type",
            "full",
            "--since",
            "2026-10-25",
            "--resources",
            "tasks",
        )
        process = tajo(nats_server.url, *words)
        await _until(lambda: _at(nats_server.url), at("00:00:00.000") - 20 * DAY_MS)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.to_thread(process.communicate, timeout=30)
        assert process.returncode == 130
        assert "goes on from there" in err
        stopped = await _job(nats_server.url)
        assert stopped.state == "stopped"
        assert stopped.at_ms < stopped.until_ms

        twilio.faults.clear()
        asked = twilio.answered.total()
        code, out, _ = await ran(nats_server.url, *words)
        assert code == 0
        assert json.loads(out)[0]["new"] == len(EVENTS)
        assert set((await stored(nats_server.url)).values()) == {1}
        assert twilio.answered.total() - asked < 26  # not all days again


async def _job(url: str) -> backfill.Backfill:
    connection = await nats.connect(url)
    try:
        bucket = await connection.jetstream().key_value(BACKFILLS.name)
        _, one = await backfill.read(bucket, "tasks")
        return one
    finally:
        await connection.close()


async def _at(url: str) -> int:
    one = await _job(url)
    return one.at_ms if one else 0


async def _until(what, least: int) -> None:
    deadline = time.monotonic() + 60
    while await what() < least:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_what_twilio_no_longer_has_is_said_and_what_is_refused_fails_with_the_remedy(
    nats_server, poller
):
    twilio = twilio_of()
    twilio.faults.append(Fault("status", status=403, path="/twilio/conversations", times=None))
    async with serving(BrevoSandbox(), twilio) as url:
        process = poller(url, "resources: [tasks, conversations], look_back_s: 60")
        await asyncio.to_thread(process.start, ready=True)
        code, out, _ = await ran(
            nats_server.url, "sync", "twilio-flex", "--json", "--type", "full", "--since", "2026-01-01",
            "--resources", "tasks,conversations,open_tasks",
        )  # fmt: skip
        tasks, made, open_tasks = json.loads(out)

        assert code == 1
        assert "keeps events for 30 days: of tasks before 2026-10-21" in tasks["gone"]
        assert open_tasks["gone"].startswith("Twilio tells of open_tasks only as they are now")
        assert (made["state"], tasks["state"], open_tasks["state"]) == ("failed", "done", "done")
        assert "may the API key read TaskRouter, Conversations and Flex?" in made["why"]
        assert "conversations" in process.wait(200)  # polling goes on without them, and says so


async def test_verify_tells_of_each_day_what_webhooks_told_and_what_was_missed_and_fetched(
    nats_server, poller
):
    told = EVENTS[:900]
    connection = await nats.connect(nats_server.url)
    await publish(connection, [to_message(_as_a_webhook_would(event), "") for event in told])
    await connection.close()
    async with serving(BrevoSandbox(), twilio_of()) as url:
        await asyncio.to_thread(poller(url).start, ready=True)
        code, out, _ = await ran(nats_server.url, "verify", "twilio-flex", "--since", SINCE, "--json")
        again = await ran(nats_server.url, "verify", "twilio-flex", "--since", SINCE, "--json")
        shown = await ran(nats_server.url, "verify", "twilio-flex", "--since", SINCE)

    by_webhook = sum(event.type == "task.created" for event in told)
    assert code == 0
    assert json.loads(out)["days"] == [
        {"day": SINCE, "known": CONTACTS, "byWebhook": by_webhook, "byPolling": 0, "fetchedNow": CONTACTS - by_webhook}
    ]  # fmt: skip
    assert json.loads(again[1])["days"] == [
        {"day": SINCE, "known": CONTACTS, "byWebhook": by_webhook, "byPolling": CONTACTS - by_webhook, "fetchedNow": 0}
    ]  # fmt: skip
    assert f"All {CONTACTS} tasks that Twilio knows are in the log" in shown[1]


def _as_a_webhook_would(event) -> RawEvent:
    return RawEvent(
        id=event.sid, product="taskrouter", type=event.type, source="/webhooks/taskrouter", subject=event.resource_sid,
        account_sid=ACCOUNT_SID, time_ms=event.time_ms, content_type="", body=b"",
    )  # fmt: skip


async def test_everything_else_is_read_without_a_word_to_brevo_and_again_only_when_it_changed(
    nats_server, poller
):
    spoken = Conversation(
        "with words", at("07:40:00.000"), at("07:50:00.000"), participants=({"identity": "visitor"},),
        messages=({"author": "visitor", "body": "my card is 4111 1111 1111 1111"}, {"author": "ana", "body": "hello"}),
    )  # fmt: skip
    twilio = twilio_of(null_attributes=True, conversations=[spoken])
    open_now = [event for event in EVENTS if event.type == "task.created"][-3:]
    ended = {event.resource_sid for event in open_now}
    twilio.events = [
        event for event in EVENTS if event in open_now or event.fields.get("task_sid") not in ended
    ]
    names = "messages,open_tasks,workers,task_queues,statistics,channels"
    async with serving(BrevoSandbox(), twilio) as url:
        await asyncio.to_thread(poller(url).start, ready=True)
        words = ("sync", "twilio-flex", "--json", "--type", "full", "--since", "2026-11-20T07:30:00Z")
        code, _, err = await ran(nats_server.url, *words, "--resources", names)
        assert (code, err) == (0, "")
        log = await stored(nats_server.url)
        quarters = (END_S - at("07:30:00.000") / 1000) // 900
        assert kinds(log) == {
            "message.added": 2, "task.snapshot": 3, "worker.snapshot": 2, "task-queue.snapshot": 2,
            "workspace.statistics": quarters, "task-queue.statistics": 2 * quarters,
        }  # fmt: skip
        bodies = await _bodies(nats_server.url)
        assert b"4111" not in bodies
        assert b"hello" not in bodies
        assert b'"attributes":null' not in bodies.replace(b" ", b"")

        await ran(nats_server.url, *words, "--resources", names)
        assert await stored(nats_server.url) == log


async def test_what_has_no_past_is_read_as_it_is_though_it_was_asked_for_some_time_ago(nats_server, poller):
    """Twilio's clock is ours: when the poller looks, the moment of asking is over."""
    twilio = twilio_of()
    twilio.clock = time.time
    async with serving(BrevoSandbox(), twilio) as url:
        await asyncio.to_thread(poller(url).start, ready=True)
        words = ("sync", "twilio-flex", "--type", "full", "--resources", "workers,task_queues")
        code, _, err = await ran(nats_server.url, *words)

    assert code == 0, err
    assert kinds(await stored(nats_server.url)) == {"worker.snapshot": 2, "task-queue.snapshot": 2}


async def _bodies(url: str) -> bytes:
    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        subscription = await jetstream.subscribe("", stream="TWILIO", ordered_consumer=True)
        count = (await jetstream.stream_info("TWILIO")).state.messages
        return b"".join([(await subscription.next_msg()).data for _ in range(count)])
    finally:
        await connection.close()


async def test_no_second_at_twilio_holds_more_than_a_limit_while_polling_and_backfills_go_on(
    nats_server, poller
):
    twilio = twilio_of()
    twilio.faults += [
        Fault("status", status=429, path="/twilio", every=41, times=None, headers={"retry-after": "1"}),
        Fault("reset", path="/twilio", every=67, times=None),
        Fault("status", status=500, path="/twilio", every=53, times=None),
    ]
    async with serving(BrevoSandbox(), twilio) as url:
        told = "resources: [tasks, conversations, workers], rate_fraction: 1.0"
        await asyncio.to_thread(poller(url, told).start, ready=True)
        code, _, _ = await ran(nats_server.url, "sync", "twilio-flex", "--type", "full", "--since", SINCE)
        assert code == 0

    assert kinds(await stored(nats_server.url))["conversation.added"] == len(CONVERSATIONS)
    assert {name: peak for name in LIMITS if (peak := twilio.peak(name)) > LIMITS[name]} == {}


async def test_a_conversation_twilio_refuses_to_tell_of_takes_no_other_along(nats_server, poller):
    twilio = twilio_of()
    one = CONVERSATIONS[5]
    path = f"/twilio/conversations/v1/Services/{CHAT_SERVICE_SID}/Conversations/{one.sid}/"
    twilio.faults.append(Fault("status", status=400, path=path, times=None))
    async with serving(BrevoSandbox(), twilio) as url:
        await asyncio.to_thread(poller(url).start, ready=True)
        words = (
            "sync",
            "twilio-flex",
            "--json",
            "--type",
            "full",
            "--since",
            SINCE,
            "--resources",
            "conversations",
        )
        code, out, _ = await ran(nats_server.url, *words)
        assert (code, json.loads(out)[0]["unreadable"]) == (0, 1)
        assert kinds(await stored(nats_server.url))["conversation.added"] == len(CONVERSATIONS) - 1

        twilio.faults.clear()
        await ran(nats_server.url, *words)
        assert kinds(await stored(nats_server.url))["conversation.added"] == len(CONVERSATIONS)


async def test_a_backfill_goes_on_while_polling_is_refused(nats_server, poller):
    twilio = twilio_of()
    twilio.faults.append(
        Fault("status", status=403, path="/twilio/taskrouter/v1/Workspaces/", every=2, times=None)
    )
    async with serving(BrevoSandbox(), twilio) as url:
        process = poller(url, "resources: [tasks], look_back_s: 60")
        await asyncio.to_thread(process.start)
        await asyncio.to_thread(process.wait, 503)  # the workspace is there, its events are refused
        words = ("sync", "twilio-flex", "--type", "full", "--since", SINCE, "--resources", "conversations")
        code, _, _ = await ran(nats_server.url, *words)

    assert code == 0
    assert kinds(await stored(nats_server.url))["conversation.added"] == len(CONVERSATIONS)


async def test_what_somebody_else_reads_is_not_taken_over(nats_server, poller):
    twilio = twilio_of()
    twilio.faults.append(Fault("latency", seconds=0.2, path="/twilio/taskrouter", times=None))
    async with serving(BrevoSandbox(), twilio) as url:
        await asyncio.to_thread(poller(url, "resources: [workers], look_back_s: 0").start, ready=True)
        words = (
            "sync",
            "twilio-flex",
            "--json",
            "--type",
            "full",
            "--since",
            "2026-10-25",
            "--resources",
            "tasks",
        )
        first = tajo(nats_server.url, *words)
        await _until(lambda: _at(nats_server.url), 1)
        code, out, err = await ran(nats_server.url, *words, "--channels", "sms")
        verified = await ran(nats_server.url, "verify", "twilio-flex", "--since", SINCE)
        out, _ = await asyncio.to_thread(first.communicate, timeout=60)

    assert code == 1
    assert "tasks since 2026-10-25 (full) is being read already: wait until it is done" in err
    assert (verified[0], first.returncode) == (0, 0)
    assert json.loads(out)[0]["since"] == "2026-10-25T00:00:00.000Z"


async def test_a_cursor_that_a_wrong_clock_left_in_the_future_is_set_back(nats_server, poller):
    connection = await nats.connect(nats_server.url)
    cursors = await connection.jetstream().key_value(CURSORS.name)
    await cursors.put("tasks", b"4070908800493")
    await connection.close()
    async with serving(BrevoSandbox(), twilio_of()) as url:
        await asyncio.to_thread(poller(url).start, ready=True)
        await _until(lambda: _events(nats_server.url), len(EVENTS))


async def _events(url: str) -> int:
    return kinds(await stored(url))["EV"]


def test_a_date_that_is_none_and_bytes_that_are_no_text_make_an_item_unreadable():
    good = b'"event_type": "task.created", "resource_sid": "WT' + b"0" * 32 + b'"}'
    raws = [
        b'{"event_date_ms": 9999999999999999, ' + good, b'{"event_date_ms": -1, ' + good,
        b'{"event_date_ms": 100000000000000000000000, ' + good, b'{"sid": "\xff"}', b'{"event_date_ms": 1, ' + good,
    ]  # fmt: skip
    read, unreadable = read_events(map(msgspec.Raw, raws), account_sid=ACCOUNT_SID, keep_bodies=False)

    assert len(read) == 1
    assert [one.why.partition(":")[0] for one in unreadable] == [*["no event_date_ms"] * 3, "no JSON"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--since", "2099-01-01"), "2099-01-01 is in the future"),
        (("--since", "0001-01-01"), "0001-01-01 is before there was a Twilio"),
        (("--resources", ","), "no resource is named: there are tasks"),
        (("--resources", "tasks,calls"), "calls is no resource: there are tasks, conversations, messages"),
        (("--channels", "fax"), "fax is no channel: there are voice, sms"),
        (("--since", "yesterday"), "yesterday is no date: write 2024-01-01"),
        (("--type", "some"), "some is no type: incremental or full"),
    ],
)
async def test_a_word_that_is_none_is_named_with_those_there_are(words, says):
    code, _, err = await ran("nats://127.0.0.1:9", "sync", "twilio-flex", *words)

    assert code == 2
    assert says in " ".join(err.replace("│", " ").split())


async def test_without_a_broker_it_says_so():
    code, out, err = await ran("nats://127.0.0.1:9", "sync", "twilio-flex")

    assert (code, out) == (69, "")
    assert "is it running" in err
    assert len(err) < 300


def test_what_is_asked_again_goes_on_and_what_is_new_begins_where_the_last_ended():
    asked = Asked(resource="tasks", since_ms=1000)
    first = backfill.planned(asked, None, now_ms=5000)
    assert (first.since_ms, first.at_ms, first.until_ms) == (1000, 1000, 5000)
    first.at_ms, first.state = 3000, "stopped"

    again = backfill.planned(asked, first, now_ms=6000)
    assert (again.at_ms, again.until_ms, again.state) == (3000, 6000, "waiting")
    again.at_ms, again.state = 6000, "done"

    newer = Asked(resource="tasks", since_ms=1000, incremental=True)
    incremental = backfill.planned(newer, again, now_ms=9000)
    assert (incremental.since_ms, incremental.until_ms) == (6000, 9000)
    other_channels = Asked(resource="tasks", since_ms=1000, incremental=True, channels=("sms",))
    assert backfill.planned(other_channels, again, now_ms=9000).since_ms == 1000
    full = backfill.planned(asked, again, now_ms=9000)
    assert (full.since_ms, full.at_ms) == (1000, 1000)
    later = Asked(resource="tasks", since_ms=8000)
    gap = backfill.planned(later, again, now_ms=9000)
    gap.state = "done"
    assert backfill.planned(newer, gap, now_ms=9900).since_ms == 6000  # from 6000 to 8000 nothing was read
    stopped_full = backfill.planned(newer, full, now_ms=9500)
    assert stopped_full.since_ms == 6000  # up to then an earlier one was done


def test_the_words_of_a_sync_become_what_is_asked():
    assert sync.asks(
        type_="incremental", resources=["conversations"], since="2024-01-01", channels=["voice", "sms"]
    ) == [
        Asked(resource="conversations", incremental=True, since_ms=1704067200000, channels=("sms", "voice"))
    ]  # fmt: skip
    assert [one.resource for one in sync.asks(type_="full")] == ["tasks", "conversations"]
