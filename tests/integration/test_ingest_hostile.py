"""Whatever is sent: no answer but those that are meant, no crash, memory bounded, every dead letter readable."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import httptools
import httpx
import nats
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.twilio import sign

TOKEN, KEY, PUBLIC = "token-of-twilio", "key-of-ours", "https://hooks.example.com"
ROUTES = (
    "/webhooks/taskrouter",
    "/webhooks/event-streams",
    "/webhooks/conversations",
    "/webhooks/interactions",
    "/webhooks/survey",
    "/webhooks/flex/task-complete",
)
OTHERS = ("/health/live", "/health/ready", "/metrics", "/", "/webhooks", "/webhooks/nothing")
MEANT = {200, 204, 403, 404, 405, 503}
TAKEN = {200, 204, 503}
PARSER = {400, 413, 431}  # of the HTTP parser, to what is no HTTP
EXAMPLES = 450
QUERY_BYTES_MAX = 20_000  # as long as a failure can be printed; a head that is too long has tests of its own
RSS_BYTES_MAX = 150 * 1024**2

NAMES = [
    "EventType",
    "Sid",
    "TimestampMs",
    "Timestamp",
    "TaskSid",
    "ResourceSid",
    "TaskAttributes",
    "ConversationSid",
    "MessageSid",
    "StateTo",
    "StateUpdated",
    "DateUpdated",
    "DateCreated",
    "AccountSid",
    "InteractionSid",
    "MediaChannelSid",
    "Body",
    "score",
    "survey",
    "comment",
    "task_sid",
    "call_sid",
    "email",
    "phone",
    "id",
    "time",
    "type",
    "data",
    "payload",
    "timestamp",
    "resource_sid",
    "sid",
    "task",
    "taskSid",
    "occurredAt",
    "token",
]
VALUES = (
    "task.created", "reservation.accepted", "onMessageAdded", "onConversationStateUpdated", "onInteractionCreated",
    "com.twilio.taskrouter.task.created", "com.twilio.conversations.message.added", "com.twilio.taskrouter.",
    "task..created", "task.created.", "2026-11-20T09:00:00Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999-14:00", "999999999999999", "-1", "0", "\u00b2", "4111 1111 1111 1111", "4 " * 60, "[" * 3000,
    '{"a":' * 2000, '{"from":"+12025550101"}', "\x00\r\n", "\u2028\ufffe\U0001f600", "EV" + "0" * 32, "WT" + "a" * 32,
    "x" * 5000, "nan", "1e400", "*", ">", ".", " ",
)  # fmt: skip

TEMPLATES = (
    {"EventType": "task.created", "TimestampMs": "1790000000000", "TaskSid": "WT1"},
    {
        "EventType": "onMessageAdded",
        "ConversationSid": "CH1",
        "MessageSid": "IM1",
        "DateCreated": "2026-11-20T09:00:00Z",
    },
    {"EventType": "onConversationStateUpdated", "ConversationSid": "CH1", "StateTo": "closed"},
    {"EventType": "onInteractionCreated", "InteractionSid": "KD1"},
    {"score": 5, "task_sid": "WT1", "survey": "csat"},
    {"task": {"taskSid": "WT1"}, "occurredAt": "2026-11-20T09:00:00Z"},
    {"type": "com.twilio.taskrouter.task.created", "data": {"payload": {"task_sid": "WT1"}}},
    {"type": "com.twilio.conversations.message.added", "data": {"ConversationSid": "CH1"}},
)

EDGES = (
    ("TimestampMs", "999999999999999"), ("TimestampMs", 10**14), ("Timestamp", "99999999999"),
    ("DateCreated", "9999-12-31T23:59:59.999999-14:00"), ("occurredAt", "0001-01-01T00:00:00+14:00"),
    ("score", 10**400), ("EventType", "task..created."), ("data", '{"payload":[]}'),
)  # fmt: skip

scalars = st.one_of(
    st.sampled_from(VALUES),
    st.text(max_size=20),
    st.integers(),
    st.sampled_from([10**30, -(10**400), 2**63, 4111111111111111]),
    st.floats(),
    st.booleans(),
    st.none(),
)
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=6,
)
fields = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), nested, max_size=8)
nearly = st.builds(
    lambda template, some: {**template, **dict(some)},
    st.sampled_from(TEMPLATES),
    st.lists(
        st.sampled_from(EDGES) | st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | nested),
        max_size=3,
    ),
)
as_json = st.one_of(nearly, st.lists(nearly | fields, max_size=4), nested).map(
    lambda one: json.dumps(one).encode()
)
pairs = st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=5), scalars), max_size=10)
as_form = (nearly.map(lambda one: list(one.items())) | pairs).map(
    lambda pairs: urlencode(pairs, errors="replace").encode()
)
bodies = st.one_of(
    st.binary(max_size=200), as_json, as_form, as_json.map(lambda body: body[: len(body) // 2])
)
queries = st.one_of(
    st.just(""),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=30),
    as_form.map(lambda body: body[:QUERY_BYTES_MAX].decode()),
)
token = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8)
value = st.binary(max_size=20).map(lambda raw: bytes(byte for byte in raw if byte >= 32 and byte != 127))
headers = st.lists(
    st.tuples(
        st.sampled_from(["accept", "content-type", "content-encoding", "host", "x-twilio-signature"]) | token,
        value,
    ).filter(lambda header: header[0] not in ("connection", "expect", "upgrade", "te")),
    max_size=4,
)


class Asked:
    """One request as bytes, and the answers that are right for it."""

    def __init__(
        self, method: str, target: str, body: bytes = b"", extra=(), *, right: set[int] = MEANT
    ) -> None:
        lines = [f"{method} {target} HTTP/1.1".encode(), b"host: x", f"content-length: {len(body)}".encode()]
        lines += [name.encode() + b": " + value for name, value in extra]
        self.bytes = b"\r\n".join(lines) + b"\r\n\r\n" + body
        self.right = right


class Answers:
    """Reads the answers of one connection."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self._parser = httptools.HttpResponseParser(self)

    def on_message_complete(self) -> None:
        self.statuses.append(self._parser.get_status_code())

    def read(self, connection: socket.socket, count: int) -> list[int]:
        """Until so many are complete, or the other side closes."""
        while len(self.statuses) < count and (data := connection.recv(65536)):
            self._parser.feed_data(data)
        return self.statuses


class Process:
    """The one ingest process all of this is sent to."""

    def __init__(self, url: str, pid: int) -> None:
        self._url = url
        self._address = ("127.0.0.1", int(url.rpartition(":")[2]))
        self._pid = pid
        self.seen: Counter[int] = Counter()

    def connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=20)

    def send(self, requests: list[Asked]) -> None:
        """All on one connection, one behind the other; each must be answered as is right."""
        with self.connect() as connection:
            connection.sendall(b"".join(one.bytes for one in requests))
            statuses = Answers().read(connection, len(requests))
        self.seen.update(statuses)
        assert len(statuses) == len(requests)
        for one, status in zip(requests, statuses, strict=True):
            assert status in one.right, one.bytes[:2000]

    def raw(self, *parts: bytes, silence_s: float = 1) -> list[int]:
        """These bytes, whatever they are; the answers until the connection ends or passes that long in silence."""
        answers = Answers()
        with self.connect() as connection:
            with suppress(ConnectionError):  # it may be refused before all is sent
                for part in parts:
                    connection.sendall(part)
            connection.settimeout(silence_s)
            with suppress(TimeoutError, ConnectionError):
                answers.read(connection, 100)
        self.seen.update(answers.statuses)
        return answers.statuses

    def health_s(self) -> float:
        """How long it takes to say that it lives."""
        began = time.monotonic()
        self.send([Asked("GET", "/health/live", right={200})])
        return time.monotonic() - began

    def drain(self) -> None:
        """Return once nothing waits in the spool, where what a slow broker did not take in time is kept."""
        deadline = time.monotonic() + 60
        while "\ntajo_ingest_spool_messages 0.0\n" not in httpx.get(f"{self._url}/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def rss(self) -> int:
        line = next(
            line for line in Path(f"/proc/{self._pid}/status").read_text().splitlines() if "VmRSS" in line
        )
        return int(line.split()[1]) * 1024


def signed(route: str, body: bytes, query: str = "") -> tuple[str, tuple[str, bytes]]:
    """Any body is rightly signed by its hash in the query."""
    target = f"{route}?bodySHA256={hashlib.sha256(body).hexdigest()}{'&' if query else ''}{query}"
    return target, ("x-twilio-signature", sign(PUBLIC + target, TOKEN).encode())


def rightly(route: str, body: bytes, query: str = "", extra=()) -> Asked:
    target, signature = signed(route, body, query)
    if "task-complete" in route:
        return Asked("POST", target, body, [*extra, ("x-tajo-key", KEY.encode())], right=TAKEN)
    return Asked("POST", target, body, [*extra, signature], right=TAKEN)


@pytest.fixture
def hostile(nats_server, service):
    ingest = service(
        "ingest",
        TAJO_NATS_URL=nats_server.url,
        TWILIO_AUTH_TOKEN=TOKEN,
        TAJO_PUBLIC_URL=PUBLIC,
        TAJO_API_KEY=KEY,
    )
    ingest.start(ready=True)
    process = Process(ingest.url, ingest.process.pid)
    yield process
    assert ingest.process.poll() is None
    assert process.rss() < RSS_BYTES_MAX
    process.send([Asked("GET", "/health/ready", right={200})])
    letters = asyncio.run(dead_letters(nats_server.url))
    assert {letter.headers["Tajo-Dead-Who"] for letter in letters} <= {"ingest"}
    for letter in letters:
        assert letter.headers["Tajo-Dead-Why"]
        assert letter.headers["Tajo-Dead-Where"] in ROUTES
    assert b"Traceback" not in ingest.end()


async def dead_letters(url: str) -> list:
    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        count = (await jetstream.stream_info("DEAD")).state.messages
        subscription = await jetstream.subscribe("dead.>", ordered_consumer=True)
        return [await subscription.next_msg(timeout=5) for _ in range(count)]
    finally:
        await connection.close()


def test_10_000_requests_of_any_kind_get_no_answer_but_those_meant(hostile):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies, queries, headers)
    def any_request(body, query, extra):
        mark = "?" if query else ""
        forged = [*extra, ("x-twilio-signature", b"Zm9yZ2Vk")]
        by_url = ("x-twilio-signature", sign(f"{PUBLIC}{ROUTES[0]}{mark}{query}", TOKEN).encode())
        others = [
            ("x-twilio-signature", b"x") if name == "x-twilio-signature" else (name, value)
            for name, value in extra
        ]
        plain = [header for header in others if header[0] != "x-twilio-signature"]
        hostile.send([
            *(rightly(route, body, query, plain) for route in ROUTES),
            *(Asked("POST", f"{route}{mark}{query}", body, extra, right={403, 404, 503}) for route in ROUTES),
            *(Asked("POST", f"{route}{mark}{query}", body, forged, right={403, 404, 503}) for route in ROUTES),
            Asked("GET", f"{ROUTES[0]}{mark}{query}", extra=[*plain, by_url], right=TAKEN),
            Asked("PUT", f"{ROUTES[1]}{mark}{query}", body, extra, right={405}),
            *(Asked("GET", f"{path}{mark}{query}", body, extra, right={200, 404}) for path in OTHERS),
        ])  # fmt: skip

    any_request()
    assert hostile.seen.total() >= 10_000


MIB = 1024**2
LARGE = {
    "many small objects": b'{"data":[' + b"[]," * 200_000 + b"1]}",
    "2 million elements": b"[" + b"1," * 2_000_000 + b"1]",
    "10,000 elements that cannot be read": b"[" + b",".join(b"%d" % n for n in range(9_900)) + b"]",
    "4 MiB deep": b"[" * (4 * MIB - 1),
    "deep objects": b'{"data":' * 500_000,
    "deep in a text": json.dumps({"TaskAttributes": '{"a":' * 100_000 + "4111111111111111"}).encode(),
    "many parameters": b"EventType=task.created&" + b"a=1&" * 900_000,
    "grows when redacted": b"EventType=task.created&Body=secret&x=" + b"\xff" * MIB,
    "cards without end": b"EventType=task.created&x=" + b"4111111111111111+" * 20_000,
    "digits without end": b"EventType=task.created&x=" + b"4+" * 20_000,
    "a number without end": b'{"score":' + b"9" * 300_000 + b"}",
    "UTF-16": json.dumps([{"type": "com.twilio.taskrouter.task.created"}]).encode("utf-16"),
    "gzip's first bytes": b"\x1f\x8b\x08\x00" + b"\x00" * 1000,
    "a byte order mark": b"\xef\xbb\xbf{}",
    "nothing but zeros": bytes(MIB),
}


def test_what_is_large_deep_or_in_another_encoding_is_taken_or_a_503_when_signed_and_a_403_when_not(
    nats_server, hostile
):
    for name, body in LARGE.items():
        for route in ROUTES:
            requests = [
                rightly(route, body),
                Asked("POST", route, body, [("x-twilio-signature", b"x")], right={403, 404, 503}),
            ]
            hostile.send(requests)
        assert hostile.health_s() < 1, name
        assert hostile.rss() < RSS_BYTES_MAX, name
    hostile.drain()
    whys = {letter.headers["Tajo-Dead-Why"] for letter in asyncio.run(dead_letters(nats_server.url))}
    assert any("once redacted" in why for why in whys)


def test_what_is_large_while_the_broker_hangs_is_kept_and_memory_is_what_it_was(nats_server, hostile):
    before = hostile.rss()
    os.kill(nats_server._process.pid, signal.SIGSTOP)
    for name in ("4 MiB deep", "grows when redacted"):
        for route in ROUTES:
            hostile.send([rightly(route, LARGE[name]), rightly(route, LARGE[name])])
    os.kill(nats_server._process.pid, signal.SIGCONT)
    grown = hostile.rss() - before
    hostile.drain()

    assert grown < 40 * MIB
    assert len(asyncio.run(dead_letters(nats_server.url))) == 2 * len(ROUTES)
    assert not hostile.seen[503]


def test_a_body_too_large_is_a_503_whether_its_length_is_said_or_not(hostile):
    body = b"x" * (4 * MIB + 1)
    target, (_, signature) = signed("/webhooks/taskrouter", body)
    head = b"POST %s HTTP/1.1\r\nhost: x\r\nx-twilio-signature: %s\r\n" % (target.encode(), signature)
    assert hostile.raw(head + b"content-length: %d\r\n\r\n" % len(body), body) == [503]
    assert hostile.raw(head + b"content-length: 99999999999\r\n\r\n", body) == [503]
    chunks = b"".join(b"10000\r\n" + body[:65536] + b"\r\n" for _ in range(65))
    assert hostile.raw(head + b"transfer-encoding: chunked\r\n\r\n", chunks) == [503]
    small = b"1\r\nx\r\n" * 20_000
    assert hostile.raw(head + b"transfer-encoding: chunked\r\n\r\n", small + b"0\r\n\r\n") == [403]


def test_a_head_too_large_is_a_503_and_never_kept(hostile):
    before = hostile.rss()
    for head in (b"GET /" + b"a" * (8 * MIB), b"GET / HTTP/1.1\r\nx: " + b"a" * (8 * MIB)):
        assert set(hostile.raw(head)) <= {503}
    many = b"GET / HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(500_000))
    assert set(hostile.raw(many)) <= {503}
    first = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    assert hostile.raw(first + many)[:1] in ([200], [])  # it may be reset before it is read
    assert hostile.rss() - before < 10 * MIB


def test_what_is_no_http_is_the_parsers_business_and_harms_nobody(hostile):
    get = b"GET /health/live HTTP/1.1\r\nhost: x\r\n"
    odd = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"GET * HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /webhooks/../health/live HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /%00%ff%f0 HTTP/1.1\r\nhost: x\r\n\r\n",
        get + b"content-length: -1\r\n\r\n",
        get + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        get + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        get + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        get + b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: x\r\n\r\n",
        get + b"upgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        get + b"expect: 100-continue\r\n\r\n",
        get + b"accept: \xff\xfe\r\n\r\n",
        get + b"x: a\x00b\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\n\r\n",
        b"HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n"[:-2],
        b"\r\n" * 50_000,
        bytes(50_000),
    ]
    for one in odd:
        assert set(hostile.raw(one, silence_s=0.1)) <= MEANT | PARSER | {100}, one[:80]
    assert hostile.health_s() < 1


def test_who_sends_slowly_is_hung_up_on_and_whoever_sends_meanwhile_is_not_kept_waiting(hostile):
    body = b"EventType=task.created"
    target, (_, signature) = signed("/webhooks/taskrouter", body)
    head = b"POST %s HTTP/1.1\r\nhost: x\r\nx-twilio-signature: %s\r\n" % (target.encode(), signature)
    slow = [
        b"",  # nothing at all
        b"POST /webhooks",  # half a head
        head + b"content-length: 22\r\n\r\nEventType",  # half a body
        head + b"transfer-encoding: chunked\r\n\r\n5\r\nEvent",
    ] * 50
    connections = [hostile.connect() for _ in slow]
    began = time.monotonic()
    for connection, part in zip(connections, slow, strict=True):
        connection.sendall(part)
    hostile.send([rightly("/webhooks/taskrouter", body + b"&TaskSid=WT%d" % number) for number in range(100)])
    assert time.monotonic() - began < 3
    answered = Counter()
    for connection in connections:
        answers = Answers()
        connection.settimeout(20)
        answers.read(connection, 1)
        answered.update(answers.statuses)
        connection.close()
    assert answered == {503: 100}  # the bodies; who sent no head gets no answer
    assert time.monotonic() - began < 15
    # Hanging up in the middle of a body leaves nothing behind either.
    for _ in range(200):
        with hostile.connect() as connection:
            connection.sendall(head + b"content-length: 4000000\r\n\r\n" + b"x" * 100_000)
    assert hostile.health_s() < 1
