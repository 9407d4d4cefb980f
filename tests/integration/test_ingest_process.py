"""Ingest as a process: signed requests over HTTP, a real broker behind, and every way the two can be apart."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import signal
import socket
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import httpx
import nats
import pytest

from shared.message import MSG_ID

DATA = Path(__file__).parent.parent / "data/twilio"
TOKEN, KEY = "token-of-twilio", "key-of-ours"
FORM = "application/x-www-form-urlencoded"
MANIFEST = json.loads((DATA / "manifest.json").read_text())
ROUTE_OF = {
    "taskrouter": "/webhooks/taskrouter",  # first: of the same event it is the callback's bytes that are kept
    "conversations": "/webhooks/conversations",
    "interactions": "/webhooks/interactions",
    "eventstreams": "/webhooks/event-streams",
}
FILES = [
    str(path.relative_to(DATA))
    for folder in ROUTE_OF
    for path in sorted((DATA / folder).iterdir())
    if "test-event" not in path.name
]


def signed(path: str, body: bytes, *, token: str = TOKEN) -> tuple[str, dict[str, str]]:
    """The path with its query, and the headers, as Twilio would send them."""
    url = f"https://hooks.example.com{path}"
    if body[:1] in (b"{", b"["):
        path += f"?bodySHA256={hashlib.sha256(body).hexdigest()}"
        text, kind = f"https://hooks.example.com{path}", "application/json"
    else:
        text = url + "".join(
            sorted(f"{name}{value}" for name, value in parse_qsl(body.decode(), keep_blank_values=True))
        )
        kind = FORM
    mac = base64.b64encode(hmac.digest(token.encode(), text.encode(), "sha1")).decode()
    return path, {"X-Twilio-Signature": mac, "content-type": kind}


def callback(number: int) -> bytes:
    fields = dict(parse_qsl((DATA / "taskrouter/01-voice.task.created.form").read_text()))
    return urlencode({**fields, "Sid": f"EV{number:032x}"}).encode()


SETTINGS = {
    "TAJO_PUBLIC_URL": "https://hooks.example.com",
    "TWILIO_AUTH_TOKEN": f"rotated-away,{TOKEN}",
    "TAJO_API_KEY": KEY,
}


@pytest.fixture
def ingest(nats_server, service):
    process = service("ingest", TAJO_NATS_URL=nats_server.url, **SETTINGS)
    process.start(ready=True)
    return process


async def log_of(url: str, stream: str = "TWILIO") -> list:
    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        last = (await jetstream.stream_info(stream)).state.last_seq
        return [await jetstream.get_msg(stream, number) for number in range(1, last + 1)]
    finally:
        await connection.close()


async def post(client: httpx.AsyncClient, path: str, body: bytes, **kinds: str) -> int:
    path, headers = signed(path, body, **kinds)
    return (await client.post(path, content=body, headers=headers)).status_code


async def test_every_payload_lands_in_the_log_once_however_often_it_comes(nats_server, ingest):
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        for _ in range(2):
            for file in FILES:
                status = await post(client, ROUTE_OF[file.partition("/")[0]], (DATA / file).read_bytes())
                assert status == (204 if file.startswith("taskrouter") else 200), file

    log = await log_of(nats_server.url)
    ids = [message.headers[MSG_ID] for message in log]
    assert len(ids) == len(set(ids))
    taskrouter = {m.headers[MSG_ID]: m for m in log if m.headers["ce-source"] == "/webhooks/taskrouter"}
    for fixture in (DATA / "taskrouter").iterdir():
        message = taskrouter[dict(parse_qsl(fixture.read_text()))["Sid"]]
        assert message.data == fixture.read_bytes()
        assert message.headers["ce-specversion"] == "1.0"
        assert message.headers["traceparent"].startswith("00-")
    assert not await log_of(nats_server.url, "DEAD")


async def test_forged_altered_and_unsigned_requests_leave_nothing(nats_server, ingest):
    body = callback(1)
    path, headers = signed("/webhooks/taskrouter", body)
    stream, stream_headers = signed("/webhooks/event-streams", b"[]")
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        answers = [
            await client.post(path, content=body, headers={"content-type": FORM}),
            await client.post(path, content=body, headers={**headers, "X-Twilio-Signature": "forged"}),
            await client.post(path, content=body + b"&TaskPriority=9", headers=headers),
            await client.post(f"{path}?x=1", content=body, headers=headers),
            await client.post("/webhooks/conversations", content=body, headers=headers),
            await client.post(stream, content=b"[1]", headers=stream_headers),
            await client.post("/webhooks/event-streams", content=b"[]", headers=stream_headers),
            await client.post(
                "/webhooks/survey", content=b'{"score":1,"task_sid":"WT1"}', headers={"X-Tajo-Key": "guess"}
            ),
            await client.post(
                path, content=body, headers={**headers, "X-Twilio-Signature": "\u00e9".encode()}
            ),
        ]
        assert await post(client, "/webhooks/taskrouter", body, token="another") == 403

    assert [answer.status_code for answer in answers] == [403] * len(answers)
    assert not await log_of(nats_server.url)
    assert not await log_of(nats_server.url, "DEAD")


async def test_the_key_opens_the_survey_and_the_flex_plugin_and_nothing_else(nats_server, ingest):
    plugin, key = (DATA / "flex-plugin/task-completed.json").read_bytes(), {"X-Tajo-Key": KEY}
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        assert (await client.post("/webhooks/flex/task-complete", content=plugin)).status_code == 404
        assert await post(client, "/webhooks/flex/task-complete", plugin) == 404
        assert (
            await client.post("/webhooks/flex/task-complete", content=plugin, headers=key)
        ).status_code == 200
        survey = {"score": 5, "task_sid": "WT1"}
        assert (await client.post("/webhooks/survey", json=survey, headers=key)).status_code == 200
        assert await post(client, "/webhooks/survey", b'{"score":3,"call_sid":"CA1"}') == 200
        assert (
            await client.post("/webhooks/taskrouter", content=callback(1), headers=key)
        ).status_code == 403

    log = await log_of(nats_server.url)
    assert [m.headers["ce-source"] for m in log] == [
        "/webhooks/flex/task-complete",
        "/webhooks/survey",
        "/webhooks/survey",
    ]
    assert b"flex-user-jwe" not in log[0].data


async def test_what_is_rightly_signed_and_cannot_be_read_is_a_dead_letter_and_a_2xx(nats_server, ingest):
    odd = {
        "/webhooks/taskrouter": [
            b"",
            b"Hello=World",
            b"EventType=%FF%00&Card=4111111111111111",
            b"[1,2",
            b"{}",
        ],
        "/webhooks/event-streams": [
            b'[{"type":"com.twilio.taskrouter.task.created","data":5},{"x":1}]',
            b"{",
            b"x=1",
        ],
        "/webhooks/interactions": [b"EventType=nothing"],
        "/webhooks/survey": [b'{"score":"great","task_sid":"WT1"}'],
    }
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        statuses = [await post(client, path, body) for path, bodies in odd.items() for body in bodies]

    assert set(statuses) <= {200, 204}
    letters = await log_of(nats_server.url, "DEAD")
    assert {letter.headers["Tajo-Dead-Where"] for letter in letters} == set(odd)
    assert b"Hello=World" in [letter.data for letter in letters]
    assert not any(b"4111111111111111" in (letter.data or b"") for letter in letters)


async def test_too_large_and_too_many_headers_are_503_and_never_4xx(ingest):
    body = b"EventType=task.created&x=" + b"a" * (4 * 1024**2)
    path, headers = signed("/webhooks/taskrouter", body)
    async with httpx.AsyncClient(base_url=ingest.url, timeout=20) as client:
        assert (await client.post(path, content=body, headers=headers)).status_code == 503
        heavy = {**headers, **{f"x-{n}": "y" * 1000 for n in range(40)}}
        assert (await client.post(path, content=b"", headers=heavy)).status_code == 503
        assert await post(client, "/webhooks/taskrouter", callback(1)) == 204


async def test_a_callback_set_to_get_is_heard_too(nats_server, ingest):
    query = callback(7).decode()
    text = f"https://hooks.example.com/webhooks/taskrouter?{query}"
    mac = base64.b64encode(hmac.digest(TOKEN.encode(), text.encode(), "sha1")).decode()
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        answer = await client.get(f"/webhooks/taskrouter?{query}", headers={"X-Twilio-Signature": mac})

    assert answer.status_code == 204
    assert [message.headers[MSG_ID] for message in await log_of(nats_server.url)] == [f"EV{7:032x}"]


async def test_without_a_broker_it_spools_says_so_and_drains_when_the_broker_is_back(nats_server, ingest):
    async with httpx.AsyncClient(base_url=ingest.url, timeout=10) as client:
        assert await post(client, "/webhooks/taskrouter", callback(1)) == 204
        nats_server.stop()
        assert await post(client, "/webhooks/taskrouter", callback(2)) == 204
        assert await post(client, "/webhooks/taskrouter", callback(2)) == 204
        assert "spooling: no connection to NATS; 1 messages" in await asyncio.to_thread(ingest.wait, 200)
        nats_server.start()
        while "spooling" in await asyncio.to_thread(ingest.wait, 200):  # noqa: ASYNC110 - two sides of one wire
            await asyncio.sleep(0.02)

    assert [m.headers[MSG_ID] for m in await log_of(nats_server.url)] == [f"EV{n:032x}" for n in (1, 2)]


async def test_it_starts_without_a_broker_ready_because_it_spools(nats_server, service):
    nats_server.stop()
    ingest = service("ingest", TAJO_NATS_URL=nats_server.url, **SETTINGS)

    ingest.start(ready=True)

    async with httpx.AsyncClient(base_url=ingest.url) as client:
        assert await post(client, "/webhooks/taskrouter", callback(1)) == 204
    assert "spooling: no connection to NATS" in await asyncio.to_thread(ingest.wait, 200)


async def test_stopped_under_load_it_keeps_what_it_acknowledged_and_says_nothing_but_2xx_and_503(
    nats_server, ingest
):
    acknowledged: set[str] = set()
    seen: set[int] = set()

    async def send(client: httpx.AsyncClient, first: int) -> None:
        for number in range(first, first + 400):
            try:
                status = await post(client, "/webhooks/taskrouter", callback(number))
            except httpx.TransportError:  # the door is shut: Twilio tries again
                return
            seen.add(status)
            if status == 204:
                acknowledged.add(f"EV{number:032x}")

    async with httpx.AsyncClient(base_url=ingest.url, limits=httpx.Limits(max_connections=20)) as client:
        sending = [asyncio.create_task(send(client, 1000 * worker)) for worker in range(20)]
        while len(acknowledged) < 300:  # noqa: ASYNC110 - two sides of one wire
            await asyncio.sleep(0.01)
        errors = await asyncio.to_thread(ingest.end)
        await asyncio.gather(*sending)

    log = [message.headers[MSG_ID] for message in await log_of(nats_server.url)]
    assert acknowledged <= set(log)
    assert len(log) == len(set(log))
    assert seen <= {204, 503}
    assert ingest.process.returncode in (0, -signal.SIGTERM)
    assert b"Traceback" not in errors, errors


async def test_nothing_a_customer_said_and_no_secret_reaches_the_logs(ingest):
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        for file in FILES[:12]:
            await post(client, ROUTE_OF[file.partition("/")[0]], (DATA / file).read_bytes())
            await post(client, ROUTE_OF[file.partition("/")[0]], (DATA / file).read_bytes(), token="wrong")
        metrics = (await client.get("/metrics")).text

    said = (await asyncio.to_thread(ingest.end)).decode() + metrics
    for secret in (TOKEN, KEY, "example.com", "+1500", "%2B1500", "Lopez"):
        assert secret not in said
    assert "signature_refused" in said


async def test_a_stranger_is_answered_briefly_and_writes_nothing_into_the_log(ingest):
    upgrade = {"connection": "upgrade", "upgrade": "websocket"}
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        answers = [await client.get("/nothing"), await client.get("/nothing", headers=upgrade)]

    said = (await asyncio.to_thread(ingest.end)).decode()
    assert [(answer.status_code, answer.text) for answer in answers] == [(404, "not found\n")] * 2
    assert "pgrade" not in said
    assert "WebSocket" not in said


def test_missing_settings_are_named_and_end_the_process(service):
    ingest = service("ingest", TWILIO_AUTH_TOKEN="", TAJO_INGEST_PORT="many")

    ingest.start()
    errors = ingest.ended()

    assert ingest.process.returncode == os.EX_CONFIG
    assert errors.decode().splitlines() == [
        "TWILIO_AUTH_TOKEN is not set: Twilio's auth token; several, by comma, while one is rotated",
        "TAJO_INGEST_PORT has a value of the wrong kind: port on which webhooks are heard (at least 1, at most 65535)",
    ]


def test_a_port_in_use_is_named_and_ends_the_process_before_anything_is_begun(service):
    ingest = service("ingest", TWILIO_AUTH_TOKEN=TOKEN)
    port = int(ingest.url.rpartition(":")[2])

    with socket.create_server(("127.0.0.1", port)):
        ingest.start()
        said = ingest.ended().decode()

    assert ingest.process.returncode == os.EX_CONFIG
    assert said == f"127.0.0.1:{port} is in use: stop what listens there, or set TAJO_INGEST_PORT\n"


def test_it_listens_on_loopback_only(ingest):
    host = socket.gethostbyname(socket.gethostname())
    if host.startswith("127."):
        host = "127.0.0.2"  # a loopback address it does not listen on
    with (
        pytest.raises(OSError, match="refused"),
        socket.create_connection((host, int(ingest.url.rpartition(":")[2])), timeout=2),
    ):
        pass
