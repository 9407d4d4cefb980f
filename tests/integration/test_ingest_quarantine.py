"""Wrong signatures: 403, kept aside for a day within limits, and taken back once the right token is set."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import httpx
import nats
import pytest

from ingest.quarantine import ALERT_S, PER_S, RUN, RUN_S, Run
from sandbox.twilio import FORM, JSON, Webhook, signed
from shared.message import MSG_ID

OLD, NEW, PUBLIC = "the-old-token", "the-new-token", "https://hooks.example.com"
ROOT = Path(__file__).parent.parent.parent


def callback(number: int, filling: int = 0) -> Webhook:
    fields = {"EventType": "task.created", "Sid": f"EV{number:032x}", "TaskSid": f"WT{number:032x}"}
    more = {"TaskAttributes": '{"from":"+12025550101","name":"Lopez"}', "x": "y" * filling}
    return Webhook("/webhooks/taskrouter", urlencode({**fields, **more}).encode(), FORM, "", ())


def stream(number: int) -> Webhook:
    event = {"type": "com.twilio.taskrouter.task.created", "id": f"EV{number:032x}", "data": {}}
    return Webhook("/webhooks/event-streams", f"[{event}]".replace("'", '"').encode(), JSON, "", ())


async def post(client: httpx.AsyncClient, webhook: Webhook, token: str) -> int:
    path, headers = signed(webhook, PUBLIC, token)
    return (await client.post(path, content=webhook.body, headers=headers)).status_code


def tajo(*arguments: str, url: str, token: str = NEW) -> subprocess.CompletedProcess[str]:
    settings = {"TAJO_NATS_URL": url, "TWILIO_AUTH_TOKEN": token, "TAJO_PUBLIC_URL": PUBLIC}
    environment = {**os.environ, **settings, "TAJO_CONFIG": str(ROOT / "config/tajo.yaml"), "COLUMNS": "150"}
    return subprocess.run(
        [sys.executable, "-m", "tajo", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def ids(url: str, name: str = "TWILIO") -> list[str]:
    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        count = (await jetstream.stream_info(name)).state.messages
        subscription = await jetstream.subscribe("", stream=name, ordered_consumer=True)
        return [(await subscription.next_msg(timeout=5)).headers[MSG_ID] for _ in range(count)]
    finally:
        await connection.close()


async def quarantined(url: str, count: int) -> None:
    connection = await nats.connect(url)
    while (await connection.jetstream().stream_info("QUARANTINE")).state.messages != count:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)
    await connection.close()


def dropped(metrics: str) -> int:
    start = 'tajo_ingest_quarantined_total{outcome="dropped"} '
    return sum(
        int(float(line.removeprefix(start))) for line in metrics.splitlines() if line.startswith(start)
    )


@pytest.fixture
def ingest(nats_server, service):
    process = service("ingest", TAJO_NATS_URL=nats_server.url, TWILIO_AUTH_TOKEN=OLD, TAJO_PUBLIC_URL=PUBLIC)
    process.start(ready=True)
    return process


async def test_after_a_botched_rotation_each_webhook_is_taken_back_once_and_a_forged_one_stays(
    nats_server, ingest
):
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        assert await post(client, callback(1), OLD) == 204
        for number in range(2, 12):
            assert await post(client, callback(number), NEW) == 403
        assert await post(client, callback(2), NEW) == 403  # Twilio repeats itself
        assert await post(client, stream(12), NEW) == 403
        query = callback(13).body.decode()
        path, headers = signed(Webhook("/webhooks/taskrouter?" + query, b"", FORM, "", ()), PUBLIC, NEW)
        assert (await client.get(path, headers=headers)).status_code == 403
        assert await post(client, callback(99), "forged") == 403
        unsigned = await client.post("/webhooks/taskrouter", content=callback(98).body)
        assert unsigned.status_code == 403
        await quarantined(nats_server.url, 13)
        assert len(await ids(nats_server.url)) == 1

        listed = await asyncio.to_thread(tajo, "quarantine", "ls", url=nats_server.url)
        assert listed.returncode == 0, listed.stderr
        assert "13 in quarantine" in listed.stdout
        assert f"EV{5:032x} WT{5:032x}" in listed.stdout
        assert "Lopez" not in listed.stdout
        assert "2025550101" not in listed.stdout

        nothing = await asyncio.to_thread(tajo, "quarantine", "recheck", url=nats_server.url, token="neither")
        assert "0 of 13" in nothing.stdout
        rechecked = await asyncio.to_thread(tajo, "quarantine", "recheck", url=nats_server.url)
        assert rechecked.returncode == 0, rechecked.stderr
        assert "12 of 13" in rechecked.stdout
        assert "1 stay" in rechecked.stdout
        again = await asyncio.to_thread(tajo, "quarantine", "recheck", url=nats_server.url)
        assert "0 of 1" in again.stdout

    assert sorted(await ids(nats_server.url)) == [f"EV{number:032x}" for number in range(1, 14)]
    assert len(await ids(nats_server.url, "QUARANTINE")) == 1
    assert not await ids(nats_server.url, "DEAD")


async def test_a_flood_of_forged_requests_is_answered_and_kept_only_within_limits(nats_server, ingest):
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=ingest.url, timeout=20) as client:
        large = await post(client, callback(1, filling=250_000), "forged")
        answers = await asyncio.gather(
            *(post(client, callback(number), "forged") for number in range(2, 1002))
        )
        seconds = int(time.monotonic() - began) + 2  # whole ones, and the pieces at both ends
        kept = 0
        while kept + dropped(lines := (await client.get("/metrics")).text) != 1001:
            kept = len(await ids(nats_server.url, "QUARANTINE"))

    assert {large, *answers} == {403}
    assert PER_S <= kept <= PER_S * seconds
    assert "tajo_ingest_refused_run 1001.0" in lines
    said = (await asyncio.to_thread(ingest.end)).decode()
    assert said.count("signatures_refused_in_a_row") == 1
    assert "tajo quarantine recheck" in said


async def test_a_broker_that_is_away_does_not_delay_the_403(nats_server, ingest):
    nats_server.stop()
    async with httpx.AsyncClient(base_url=ingest.url, timeout=1) as client:
        for number in range(100):
            assert await post(client, callback(number), NEW) == 403
        assert await post(client, callback(1), OLD) == 204


def test_recheck_without_broker_or_settings_says_what_to_do(nats_server):
    assert tajo("quarantine", "recheck", url=nats_server.url, token="").returncode == os.EX_CONFIG
    nats_server.stop()
    answer = tajo("quarantine", "recheck", url=nats_server.url)

    assert answer.returncode == os.EX_UNAVAILABLE
    assert "is it running" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_run_of_wrong_signatures_alerts_once_in_five_minutes_and_a_right_one_ends_it():
    run = Run()
    assert [run.wrong(float(second)) for second in range(RUN)] == [False] * (RUN - 1) + [True]
    alerts = [second for second in range(RUN, 2 * int(ALERT_S)) if run.wrong(float(second))]
    assert alerts == [RUN - 1 + ALERT_S]

    run.right()
    assert run.length == 0
    assert not any(run.wrong(10_000.0 + second) for second in range(RUN - 1))
    run.right()
    assert not any(run.wrong(20_000.0 + second * (RUN_S / 10)) for second in range(100))  # too far apart
