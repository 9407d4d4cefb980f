"""Ingest while the log cannot take anything: what it acknowledged is in the log in the end, once."""

import asyncio
import os
import resource
import signal
import time
from collections import Counter
from urllib.parse import urlencode

import httpx
import nats
import nats.errors
import pytest

from sandbox.twilio import FORM, Webhook, signed
from shared.bootstrap import stream_config
from shared.message import MSG_ID
from shared.topology import TWILIO

TOKEN, PUBLIC = "token-of-twilio", "https://hooks.example.com"
SETTINGS = {"TWILIO_AUTH_TOKEN": TOKEN, "TAJO_PUBLIC_URL": PUBLIC}


def ev(number: int) -> str:
    return f"EV{number:032x}"


def callback(number: int, filling: int = 1000) -> Webhook:
    fields = {"EventType": "task.created", "Sid": ev(number), "TaskSid": f"WT{number:032x}"}
    body = urlencode({**fields, "TimestampMs": 1790000000000 + number, "x": "y" * filling}).encode()
    return Webhook("/webhooks/taskrouter", body, FORM, "", ())


class Load:
    """Twenty callers, until told to stop; remembers every answer, and how long the slowest took."""

    def __init__(self, url: str) -> None:
        self.acknowledged: set[str] = set()
        self.answers: Counter[int] = Counter()
        self.slowest_s = 0.0
        self._url = url
        self._next = 0
        self._stopping = False

    async def post(self, client: httpx.AsyncClient, number: int, filling: int = 1000) -> int:
        path, headers = signed(webhook := callback(number, filling), PUBLIC, TOKEN)
        began = time.monotonic()
        status = (await client.post(path, content=webhook.body, headers=headers)).status_code
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.answers[status] += 1
        if status == 204:
            self.acknowledged.add(ev(number))
        return status

    async def _caller(self, client: httpx.AsyncClient) -> None:
        while not self._stopping:
            self._next += 1
            try:
                await self.post(client, self._next)
            except httpx.TransportError:  # ingest is gone: Twilio would try again
                await asyncio.sleep(0.01)

    async def __aenter__(self):
        limits = httpx.Limits(max_connections=20, max_keepalive_connections=20)
        self._client = httpx.AsyncClient(base_url=self._url, timeout=10, limits=limits)
        self._callers = [asyncio.create_task(self._caller(self._client)) for _ in range(20)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._callers)
        await self._client.aclose()

    async def more(self, count: int, seconds: float = 0.0) -> None:
        """Until so many more are acknowledged, and so much time has passed."""
        began, had = time.monotonic(), len(self.acknowledged)
        await until(lambda: len(self.acknowledged) >= had + count and time.monotonic() >= began + seconds, 60)


async def until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def health(ingest) -> str:
    return httpx.get(f"{ingest.url}/health/ready", timeout=5).text


def metric(ingest, name: str) -> float:
    lines = httpx.get(f"{ingest.url}/metrics", timeout=5).text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


async def drained(ingest) -> None:
    await until(lambda: metric(ingest, "tajo_ingest_spool_messages") == 0, 60)


async def log_of(url: str) -> list[str]:
    """The ids in TWILIO, in order."""
    connection = await nats.connect(url)
    try:
        subscription = await connection.jetstream().subscribe("twilio.>", ordered_consumer=True)
        last = (await connection.jetstream().stream_info("TWILIO")).state.messages
        return [(await subscription.next_msg(timeout=5)).headers[MSG_ID] for _ in range(last)]
    finally:
        await connection.close()


@pytest.fixture
def ingest(nats_server, service):
    process = service("ingest", TAJO_NATS_URL=nats_server.url, **SETTINGS)
    process.start(ready=True)
    return process


async def test_a_broker_stopped_and_killed_under_load_costs_no_webhook_and_doubles_none(nats_server, ingest):
    async with Load(ingest.url) as load:
        await load.more(300)
        nats_server.stop()
        await load.more(300, seconds=3)
        nats_server.start()
        await drained(ingest)  # while the load goes on
        nats_server.kill()
        await load.more(300, seconds=1)
        nats_server.start()
        await load.more(300)
    await drained(ingest)

    log = await log_of(nats_server.url)
    assert set(log) == load.acknowledged
    assert len(log) == len(set(log))
    assert set(load.answers) == {204}
    assert load.slowest_s < 5
    spooled = metric(ingest, "tajo_ingest_spooled_total")
    assert spooled >= 600
    assert metric(ingest, "tajo_ingest_drained_total") == spooled
    assert metric(ingest, "tajo_ingest_spool_messages") == 0


async def test_a_broker_that_hangs_costs_no_webhook_and_each_is_answered_within_5_s(nats_server, ingest):
    async with Load(ingest.url) as load:
        await load.more(100)
        os.kill(nats_server._process.pid, signal.SIGSTOP)
        await load.more(300, seconds=3)
        os.kill(nats_server._process.pid, signal.SIGCONT)
        await load.more(100)
    await drained(ingest)

    log = await log_of(nats_server.url)
    assert load.acknowledged == set(log)
    assert len(log) == len(set(log))
    assert set(load.answers) == {204}
    assert load.slowest_s < 5


async def test_killed_while_spooling_and_started_again_it_drains_what_it_acknowledged(nats_server, ingest):
    nats_server.stop()
    async with Load(ingest.url) as load:
        for _ in range(3):
            await load.more(200)
            await asyncio.to_thread(ingest.end, signal.SIGKILL)
            ingest.start()
            await asyncio.to_thread(ingest.wait, 200)
    assert metric(ingest, "tajo_ingest_spool_messages") >= 600
    nats_server.start()
    await drained(ingest)

    log = await log_of(nats_server.url)
    assert load.acknowledged <= set(log)  # one killed between disk and answer is there, unacknowledged
    assert len(set(log) - load.acknowledged) <= 3 * 20
    assert len(log) == len(set(log))
    assert set(load.answers) == {204}


async def test_killed_while_draining_and_started_again_nothing_is_lost_or_doubled(nats_server, ingest):
    nats_server.stop()
    async with Load(ingest.url) as load:
        await load.more(3000)
    nats_server.start()
    await until(lambda: metric(ingest, "tajo_ingest_drained_total") > 0)
    await asyncio.to_thread(ingest.end, signal.SIGKILL)
    ingest.start(ready=True)
    await drained(ingest)

    log = await log_of(nats_server.url)
    assert set(log) == load.acknowledged
    assert len(log) == len(set(log))


async def test_it_drains_in_the_order_it_heard(nats_server, ingest):
    nats_server.stop()
    load = Load(ingest.url)
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        for number in range(50):
            await load.post(client, number)
    nats_server.start()
    await drained(ingest)

    assert await log_of(nats_server.url) == [ev(number) for number in range(50)]


async def test_a_full_log_is_spooled_until_there_is_room(nats_server, ingest):
    connection = await nats.connect(nats_server.url)
    config = stream_config(TWILIO)
    await connection.jetstream().update_stream(config.evolve(max_bytes=4096))
    load = Load(ingest.url)
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        for number in range(20):
            await load.post(client, number)
        assert set(load.answers) == {204}
        assert metric(ingest, "tajo_ingest_spool_messages") > 0
    await connection.jetstream().update_stream(config)
    await connection.close()
    await drained(ingest)

    assert await log_of(nats_server.url) == [ev(number) for number in range(20)]


async def test_a_full_spool_says_503_and_unready_and_the_log_has_exactly_what_was_acknowledged(
    nats_server, service
):
    settings = {**SETTINGS, "TAJO_SPOOL_BYTES_MAX": str(2**20)}
    ingest = service("ingest", TAJO_NATS_URL=nats_server.url, **settings)
    ingest.start(ready=True)
    nats_server.stop()
    load = Load(ingest.url)
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        await asyncio.gather(*(load.post(client, number, filling=20_000) for number in range(100)))
        assert set(load.answers) == {204, 503}
        while await load.post(client, 1000 + load.answers.total(), filling=20_000) == 204:
            pass
        assert 30 < len(load.acknowledged) < 60
        assert "full" in await asyncio.to_thread(ingest.wait, 503)
        assert "full" in health(ingest)
        nats_server.start()
        await drained(ingest)
        assert await load.post(client, 5000) == 204

    log = await log_of(nats_server.url)
    assert set(log) == load.acknowledged
    assert len(log) == len(set(log))


async def test_a_log_that_is_full_is_named_and_costs_no_webhook(nats_server, ingest):
    connection = await nats.connect(nats_server.url)
    jetstream = connection.jetstream()
    whole = (await jetstream.stream_info("TWILIO")).config
    await jetstream.update_stream(whole.evolve(max_bytes=1))
    load = Load(ingest.url)
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        assert await load.post(client, 1) == 204
        await until(lambda: "JetStream refuses it: maximum bytes exceeded; 1 messages in" in health(ingest))
        await jetstream.update_stream(whole)
        await drained(ingest)
        await until(lambda: health(ingest) == "ready\n")
    await connection.close()

    assert set(await log_of(nats_server.url)) == load.acknowledged


async def test_a_disk_that_fails_says_503_and_the_log_is_still_used_and_it_spools_again_when_mended(
    nats_server, ingest
):
    pid, load = ingest.process.pid, Load(ingest.url)
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # no file may be written
        assert await load.post(client, 1) == 204  # straight into the log
        nats_server.stop()
        assert await load.post(client, 2) == 503
        assert "no spool" in await asyncio.to_thread(ingest.wait, 503)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert "spooling" in await asyncio.to_thread(ingest.wait, 200)
        assert await load.post(client, 3) == 204
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        assert await load.post(client, 4) == 503
        nats_server.start()
        await until(lambda: "spooling: no connection" not in health(ingest))
        # Within a second it tries the log again, past what waits in the spool and cannot be forgotten.
        async with asyncio.timeout(30):
            while await load.post(client, 5) == 503:
                pass
        assert ev(5) in load.acknowledged
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await drained(ingest)

    log = await log_of(nats_server.url)
    assert set(log) == load.acknowledged
    assert len(log) == len(set(log))


async def test_without_a_folder_it_may_write_it_works_with_the_broker_and_says_503_without(
    nats_server, service, tmp_path
):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/ingest").write_text("a file is in the way")
    ingest = service("ingest", TAJO_NATS_URL=nats_server.url, **SETTINGS)
    ingest.start(ready=True)
    load = Load(ingest.url)
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        assert "ready; no spool" in health(ingest)
        assert await load.post(client, 1) == 204
        nats_server.stop()
        assert await load.post(client, 2) == 503
        assert "no spool" in await asyncio.to_thread(ingest.wait, 503)

    assert b"spool_unusable" in await asyncio.to_thread(ingest.end)


async def test_two_on_one_folder_each_have_a_file_and_one_started_alone_drains_both(nats_server, service):
    pair = [service("ingest", TAJO_NATS_URL=nats_server.url, **SETTINGS) for _ in range(2)]
    for ingest in pair:
        ingest.start(ready=True)
    nats_server.stop()
    for number, ingest in enumerate(pair):
        async with httpx.AsyncClient(base_url=ingest.url) as client:
            assert await Load(ingest.url).post(client, number) == 204
    for ingest in pair:
        await asyncio.to_thread(ingest.end, signal.SIGKILL)
    nats_server.start()

    pair[0].start(ready=True)
    await drained(pair[0])

    assert sorted(await log_of(nats_server.url)) == [ev(0), ev(1)]
