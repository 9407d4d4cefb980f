"""`tajo dlq`, on dead letters that services wrote: seen by cause, and when that is mended, all said again in order."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.limits import Limits
from shared import command, dead, trace
from shared.command import ContactUpsert, EventTrack
from shared.message import MSG_ID
from shared.topology import BREVO_SINK

FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
EVENTS = 40  # fewer than make the sink pause


def track(number: int, name: str = "BAD") -> EventTrack:
    return EventTrack(
        id=f"WT{number}/task.created", ext_id="tajo-a", name=name, time="2026-11-20T10:00:00.000Z"
    )


async def tajo(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tajo", "dlq", *arguments],
        env={**os.environ, "TAJO_NATS_URL": url, "COLUMNS": "200"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
async def brevo():
    sandbox = BrevoSandbox(limits=FAST)
    async with serving(sandbox) as url:
        sandbox.url = f"{url}/v3"
        yield sandbox


async def test_what_was_refused_is_seen_by_cause_and_said_again_in_order_once_that_is_mended(
    nats_server, service, brevo
):
    sink = service(
        "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key, TAJO_BREVO_URL=brevo.url
    )
    brevo.event_log.refused_names.add("BAD")
    await asyncio.to_thread(sink.start, ready=True)
    contact = ContactUpsert(id="tajo-a/1", ext_id="tajo-a", version=1, mapping="m", email="a@example.com")
    begun = trace.start()
    first = command.to_message(track(0), begun)
    await nats_server.say(contact, first, *(track(number) for number in range(1, EVENTS)))
    await nats_server.say(track(99, name="no name"))
    await nats_server.all_acked(BREVO_SINK)

    listed = await tajo(nats_server.url, "ls")
    grouped = json.loads((await tajo(nats_server.url, "ls", "--json")).stdout)
    sequence = str(grouped[0]["sequence"])
    shown = json.loads((await tajo(nats_server.url, "show", sequence, "--json")).stdout)
    brevo.event_log.refused_names.clear()
    retried = await tajo(nats_server.url, "retry", "--cause", "refused: event_name is not allowed")
    await nats_server.all_acked(BREVO_SINK)
    left = json.loads((await tajo(nats_server.url, "ls", "--each", "--json")).stdout)

    assert f"{EVENTS} × refused: event_name is not allowed" in listed.stdout  # noqa: RUF001
    assert [group["count"] for group in grouped] == [EVENTS, 1]
    assert json.loads(shown["body"])["id"] == "WT0/task.created"
    assert shown["trace_id"] == begun.split("-")[1]
    assert (shown["who"], shown["tries"], shown["where"].split(":")[0]) == ("brevo-sink", 1, "BREVO")
    assert (retried.returncode, retried.stdout) == (0, f"{EVENTS} said again\n")
    assert [one.properties["idempotency_key"] for one in brevo.events] == [track(n).id for n in range(EVENTS)]
    assert [json.loads(letter["body"])["id"] for letter in left] == [track(99).id]
    dropped = await tajo(nats_server.url, "drop", str(left[0]["sequence"]))
    assert (dropped.returncode, dropped.stdout) == (0, "1 dropped\n")
    assert not await nats_server.messages("DEAD")


async def test_what_came_from_no_stream_stays_and_is_said_to(nats_server):
    letter = dead.to_message(
        who="ingest", why="not JSON", where="/webhooks/survey", msg_id="x", body=b"\xff{", headers={}
    )
    await nats_server.say(letter)

    done = await tajo(nats_server.url, "retry", "--all", "--json")
    shown = await tajo(nats_server.url, "show", "1")

    assert json.loads(done.stdout) == {"retried": 0, "left": 1}
    assert "/webhooks/survey" in shown.stdout
    assert len(await nats_server.messages("DEAD")) == 1


async def test_a_retry_cut_off_before_the_letter_is_removed_is_repeated_once(nats_server):
    original = command.to_message(track(1), trace.start())
    where = f"BREVO:7:{original.subject}"
    await nats_server.say(
        dead.to_message(
            who="brevo-sink",
            why="x",
            where=where,
            msg_id="BREVO/7",
            body=original.body,
            headers=original.headers,
        )
    )
    (stored,) = await nats_server.messages("DEAD")
    letter = dead.from_message(sequence=1, written="", headers=stored.headers, body=stored.data)
    await nats_server.say(dead.again(letter))  # and there the first retry ended

    await tajo(nats_server.url, "retry", "1")

    (again,) = await nats_server.messages("BREVO")
    assert (again.subject, again.data) == (original.subject, original.body)
    assert again.headers["traceparent"] == original.headers["traceparent"]
    assert again.headers[MSG_ID] == f"{track(1).id}/again/1"
    assert not await nats_server.messages("DEAD")


async def test_exit_codes_tell_nothing_there_wrong_usage_and_no_broker(nats_server):
    said = {
        (await tajo(nats_server.url, "show", "5")).returncode: "nothing there",
        (await tajo(nats_server.url, "drop")).returncode: "wrong usage",
        (await tajo("nats://127.0.0.1:9", "ls")).returncode: "no broker",
    }

    assert said == {1: "nothing there", 2: "wrong usage", os.EX_UNAVAILABLE: "no broker"}
