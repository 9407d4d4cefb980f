"""`tajo connectors status` over a running deployment: what it says while services work, stand by, are killed, and are away."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nats
import pytest

from mapper.story import given
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.rest import TwilioSandbox
from shared import bus, event
from shared.bus import Publisher
from shared.trace import start
from tajo.deployment import status as ask

ROOT = Path(__file__).parent.parent.parent
STORY = ROOT / "tests/golden/voice_handled/given.ndjson"
PRODUCTS = ("flex", "taskrouter", "conversations", "events")


def tajo(*arguments: str, url: str, connector: str = "twilio-flex") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tajo", "connectors", "status", connector, *arguments],
        env={**os.environ, "TAJO_NATS_URL": url, "COLUMNS": "120"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


async def until(url: str, condition, seconds: float = 60):
    """The status once it is so."""
    deadline = time.monotonic() + seconds
    while not condition(found := await ask(url)):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.2)
    return found


def roles(found) -> list[tuple[str, str]]:
    return [(one.service, one.role) for one in found.services]


def errors(found) -> list[str]:
    return [one.what for one in found.findings if one.level == "error"]


async def say(url: str, messages) -> None:
    broker = bus.connect(url, service="test")
    await broker.connect()
    await Publisher(broker).publish(messages)
    await broker.stop()


@pytest.fixture
def brevo():
    return BrevoSandbox()


@pytest.fixture
async def deployment(nats_server, service, brevo):
    """The four services, each a process of its own, nothing started yet."""
    twilio = TwilioSandbox()
    async with serving(brevo, twilio) as url:
        environment = {
            "TAJO_NATS_URL": nats_server.url,
            "TAJO_BREVO_URL": f"{url}/v3",
            "BREVO_API_KEY": brevo.api_key,
            "TWILIO_ACCOUNT_SID": twilio.account_sid,
            "TWILIO_AUTH_TOKEN": twilio.token,
            **{f"TAJO_TWILIO_{name.upper()}_URL": f"{url}/twilio/{name}" for name in PRODUCTS},
        }
        yield {name: service(name, **environment) for name in ("ingest", "mapper", "brevo-sink", "poller")}


async def begin(services) -> None:
    for one in services:
        one.start()
    await asyncio.gather(*(asyncio.to_thread(one.wait, 200) for one in services))


async def test_a_deployment_is_connected_and_counts_what_it_tracks_until_a_service_is_killed(
    nats_server, deployment, brevo
):
    await begin(deployment.values())
    call = [event.to_message(one, start()) for one in given(STORY.read_bytes())]
    await say(nats_server.url, call)
    broken = event.to_message(
        event.RawEvent(
            id="broken", product="taskrouter", type="task.created", source="/webhooks/taskrouter", subject="WT",
            account_sid="AC", time_ms=1, content_type="application/json", body=b"{",
        ),
        start(),
    )  # fmt: skip
    await say(nats_server.url, [broken])

    found = await until(
        nats_server.url,
        lambda one: one.connected and one.conversations_tracked and one.dead_letters and one.last_sync
        and not one.lag["brevo-sink"].pending + one.lag["brevo-sink"].in_hand,
    )  # fmt: skip
    assert (found.conversations_tracked, found.customers_linked, found.agents_monitored) == (1, 1, 1)
    assert found.dead_letters == 1
    assert [one.what for one in found.findings if "dead" in one.what] == ["1 dead letter"]
    assert found.last_event
    assert (found.spooled, found.quarantined, found.in_doubt, found.paused) == (0, 0, 0, None)
    assert roles(found) == [
        ("brevo-sink", "working"), ("ingest", "working"), ("mapper", "working"), ("poller", "working"),
    ]  # fmt: skip

    done = await asyncio.to_thread(tajo, "--json", url=nats_server.url)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["connected"], told["deadLetters"], told["agentsMonitored"]) == (True, 1, 1)
    assert not [said for said in (brevo.api_key, "lopez", "+1500") if said in done.stdout.lower()]
    assert {"tasks", "conversations"} <= told["cursors"].keys()
    assert told["lag"].keys() == {"mapper", "brevo-sink", "brevo-sink-past"}

    await asyncio.to_thread(deployment["mapper"].end, signal.SIGKILL)
    found = await until(nats_server.url, lambda one: errors(one) == ["mapper is not running"])
    assert not found.connected
    assert ("mapper", "silent") in roles(found)
    assert found.conversations_tracked is None
    done = await asyncio.to_thread(tajo, url=nats_server.url)
    assert done.returncode == 1
    assert "✗ twilio-flex is not connected" in done.stdout
    assert "✗ mapper is not running: its last heartbeat is" in done.stdout
    assert "start it: `tajo up`" in done.stdout

    await begin([deployment["mapper"]])
    found = await until(nats_server.url, lambda one: one.connected and one.conversations_tracked == 1)
    assert ("mapper", "silent") not in roles(found)


async def test_a_second_stands_by_one_stopped_is_not_missed_and_a_refused_key_is_said(
    nats_server, service, deployment, brevo, tmp_path
):
    second = service("mapper", TAJO_NATS_URL=nats_server.url, TAJO_DATA_DIR=str(tmp_path / "second"))
    await begin(deployment.values())
    await begin([second])

    found = await until(
        nats_server.url,
        lambda one: ("mapper", "standby") in roles(one) and all(each.ready for each in one.services),
    )
    assert found.connected
    assert roles(found).count(("mapper", "working")) == 1

    await asyncio.to_thread(deployment["mapper"].end)
    found = await until(
        nats_server.url, lambda one: one.connected and roles(one).count(("mapper", "working")) == 1
    )
    assert [role for name, role in roles(found) if name == "mapper"] == ["working"]  # none is silent

    brevo.faults.append(Fault("status", status=401, times=None))
    await say(nats_server.url, [event.to_message(one, start()) for one in given(STORY.read_bytes())])
    found = await until(nats_server.url, lambda one: one.paused)
    assert len(errors(found)) == 1
    assert errors(found)[0].startswith("brevo-sink on ")
    assert "authorised_ips" in next(one.cause for one in found.findings if one.level == "error")


async def test_nothing_running_is_said_of_each_service(nats_server):
    found = await ask(nats_server.url)

    assert errors(found) == [
        f"{name} is not running" for name in ("ingest", "mapper", "brevo-sink", "poller")
    ]
    assert found.last_sync is None


async def test_a_broker_without_our_streams_is_told_to_bootstrap(nats_server):
    connection = await nats.connect(nats_server.url)
    for name in ("KV_status", "KV_cursors", "DEAD", "TWILIO"):
        await connection.jetstream().delete_stream(name)
    await connection.close()

    found = await ask(nats_server.url)

    assert errors(found) == [
        "the broker lacks the stream TWILIO, the stream DEAD, the durable mapper, the bucket status"
    ]
    assert "tajo bootstrap" in found.findings[0].remedy


def test_a_broker_that_is_away_is_69_in_words_and_in_json(nats_server):
    nats_server.stop()
    url = nats_server.url.replace("nats://", "nats://someone:secret@")

    words, value = tajo(url=url), tajo("--json", url=url)

    assert (words.returncode, value.returncode) == (69, 69)
    assert words.stderr.startswith(
        f"no broker of ours at {nats_server.url.removeprefix('nats://')}: NoServersError\n"
    )
    assert "is it running" in words.stderr
    error = json.loads(value.stderr)["error"]
    assert error.keys() == {"code", "what", "remedy"}
    assert error["code"] == 69
    assert value.stdout == words.stdout == ""
    assert "secret" not in words.stderr + value.stderr


def test_a_connector_nobody_knows_is_wrong_usage():
    done = tajo(url="nats://127.0.0.1:9", connector="zendesk")

    assert done.returncode == 2
    assert "there is twilio-flex" in done.stderr
