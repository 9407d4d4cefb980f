"""The webhooks: a raw ASGI application for each route, because FastStream's own costs twice as much.

The order: verify, redact, keep, and only when it is on disk answer 2xx.  What is rightly signed never gets a
4xx, because Event Streams drops an event for good on any but 429: what we cannot take now is a 503, what cannot
be read is a dead letter and a 200.
"""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import structlog
from msgspec import Struct

from ingest.commit import Commit, FullError
from ingest.keep import NotKeptError
from ingest.metrics import Metrics
from ingest.signature import verify
from ingest.sources import Read, Request, digest, form, read
from shared import dead
from shared.event import to_message
from shared.message import Message
from shared.topology import MESSAGE_BYTES_MAX
from shared.trace import start

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_BYTES_MAX = MESSAGE_BYTES_MAX // 2  # so that whatever is accepted fits one message, headers and all
FORM_BYTES_MAX = (
    256 * 1024
)  # of a request whose signature needs its body; TaskRouter's attributes are 4 KB at most
HEADER_BYTES_MAX = 32 * 1024  # Twilio sends about 1 KB
OPEN_MAX = 2_000  # requests at once
OPEN_BYTES_MAX = 64 * 1024**2  # of their bodies together
BODY_S = 10.0  # for a body to arrive; Twilio gives up after 5 to 15 s
KEEP_S = 4.5  # for it to be on disk; Twilio waits 5 s for an answer
WARN_S = 60.0  # at most one log line of bad signatures in this time

KEYED = frozenset({"/webhooks/survey", "/webhooks/flex/task-complete"})  # our own key opens these
UNSIGNED = frozenset({"/webhooks/flex/task-complete"})  # and nothing else opens these: 404
NO_CONTENT = frozenset({"/webhooks/taskrouter"})  # 204, as TaskRouter's documentation asks

log = structlog.get_logger()


class Answer(Struct, frozen=True):
    """A status, and the word for it in the metrics."""

    status: int
    verdict: str


UNAVAILABLE_AGAIN_S = b"1"  # Retry-After


class Webhooks:
    """All routes; holds what bounds them."""

    def __init__(
        self,
        commit: Commit,
        metrics: Metrics,
        *,
        public_url: str,
        tokens: tuple[str, ...],
        api_key: str,
        account_sid: str,
        keep_bodies: bool,
    ) -> None:
        self._commit = commit
        self._metrics = metrics
        self._public_url = public_url.rstrip("/")
        self._tokens = tokens
        self._key = api_key.encode()
        self._account_sid = account_sid
        self._keep_bodies = keep_bodies
        self._open = 0
        self._open_bytes = 0
        self._refused = 0
        self._warned = float("-inf")

    def route(self, path: str) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        """The ASGI application of one route."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            began = time.perf_counter()
            self._open += 1
            try:
                answer = await self._answer(path, scope, receive)
            finally:
                self._open -= 1
            await _say(send, answer)
            self._metrics.webhooks.labels(path, answer.verdict).inc()
            self._metrics.seconds.observe(time.perf_counter() - began)

        return application

    async def _answer(self, path: str, scope: Scope, receive: Receive) -> Answer:
        headers = dict(scope["headers"])
        keyed = path in KEYED and self._has_key(headers)
        signature = headers.get(b"x-twilio-signature", b"").decode("latin-1")
        if scope["method"] not in ("POST", "GET"):
            return Answer(405, "method")
        if path in UNSIGNED and not keyed:
            return Answer(404, "closed")
        if not keyed and not signature:
            return Answer(403, "unsigned")
        if (
            self._open > OPEN_MAX
            or sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES_MAX
        ):
            return Answer(503, "busy")
        signed_url = b"bodySHA256=" in scope["query_string"]
        if signed_url and not keyed and not self._signed_url(path, scope, signature):
            self._note_refusal(path)
            return Answer(403, "forbidden")  # before its body is read: a stranger's costs nothing
        most = BODY_BYTES_MAX if signed_url or keyed else FORM_BYTES_MAX
        body, held = b"", 0
        try:
            async with asyncio.timeout(BODY_S):
                async for chunk in _chunks(receive):
                    held += len(chunk)
                    self._open_bytes += len(chunk)
                    if held > most or self._open_bytes > OPEN_BYTES_MAX:
                        return Answer(503, "too_large")
                    body += chunk
            return await self._take(path, scope, body, signature, keyed=keyed)
        except TimeoutError:
            return Answer(503, "too_slow")
        except ConnectionError:
            return Answer(503, "hung_up")
        finally:
            self._open_bytes -= held

    async def _take(self, path: str, scope: Scope, body: bytes, signature: str, *, keyed: bool) -> Answer:
        query: bytes = scope["query_string"]
        if scope["method"] == "GET":
            body = query  # a webhook set to GET: its parameters are in the URL, and only they are signed
        try:
            if not keyed and not self._signed(path, scope, body, signature):
                self._note_refusal(path)
                return Answer(403, "forbidden")
        except ValueError:  # more parameters than we read to find out who sent them
            return Answer(503, "too_large")
        request = Request(path, body, time.time_ns() // 1_000_000, self._account_sid, self._keep_bodies)
        holds = read(request)
        messages = _messages(request, holds)
        try:
            async with asyncio.timeout(KEEP_S):
                await self._commit.put(messages)
        except (NotKeptError, FullError) as error:
            return Answer(503, "full" if isinstance(error, FullError) else "not_kept")
        self._metrics.events.labels(path).inc(len(holds.events))
        verdict = "dead" if holds.unreadable else "stored" if holds.events else "ignored"
        return Answer(204 if path in NO_CONTENT else 200, verdict)

    def _signed(self, path: str, scope: Scope, body: bytes, signature: str) -> bool:
        query = scope["query_string"].decode("latin-1")
        sha256 = (
            next((value for name, value in parse_qsl(query) if name == "bodySHA256"), None) if query else None
        )
        pairs = () if sha256 is not None or scope["method"] == "GET" else form(body)
        return verify(self._url(path, query), pairs, signature, self._tokens, sha256=sha256, body=body)

    def _signed_url(self, path: str, scope: Scope, signature: str) -> bool:
        """Whether the URL, which names the body's hash, is signed."""
        url = self._url(path, scope["query_string"].decode("latin-1"))
        return verify(url, (), signature, self._tokens)

    def _url(self, path: str, query: str) -> str:
        return f"{self._public_url}{path}{'?' if query else ''}{query}"

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        return bool(self._key) and hmac.compare_digest(headers.get(b"x-tajo-key", b""), self._key)

    def _note_refusal(self, path: str) -> None:
        self._refused += 1
        if (now := time.monotonic()) - self._warned > WARN_S:
            self._warned = now
            log.warning(
                "signature_refused",
                route=path,
                refused_in_all=self._refused,
                remedy="is TWILIO_AUTH_TOKEN the primary token, and TAJO_PUBLIC_URL what Twilio calls?",
            )


def _messages(request: Request, holds: Read) -> list[Message]:
    trace = start()
    letters = (
        dead.to_message(
            who="ingest",
            why=one.why,
            where=request.path,
            msg_id=f"{request.path}/{digest(one.body)}",  # Twilio repeating itself writes it once
            body=one.body,
            headers={"traceparent": trace},
        )
        for one in holds.unreadable
    )
    return [*(to_message(event, trace) for event in holds.events), *letters]


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _say(send: Send, answer: Answer) -> None:
    headers = [(b"content-type", b"application/json")]
    if answer.status == 503:
        headers.append((b"retry-after", UNAVAILABLE_AGAIN_S))
    if answer.status != 204:
        headers.append((b"content-length", b"0"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
