"""The webhooks: a raw ASGI application for each route, because FastStream's own costs twice as much.

The order: verify, redact, keep, and only when it is on disk answer 2xx.  What is rightly signed never gets a
4xx, because Event Streams drops an event for good on any but 429: what we cannot take now is a 503, what cannot
be read is a dead letter and a 200.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from msgspec import Struct

from ingest.commit import Commit, FullError
from ingest.judge import Heard, Judge
from ingest.keep import NotKeptError
from ingest.metrics import Metrics
from ingest.quarantine import Quarantine
from shared import span, spans, trace
from shared.message import MSG_ID
from shared.span import Span
from shared.topology import MESSAGE_BYTES_MAX, TWILIO

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_BYTES_MAX = MESSAGE_BYTES_MAX // 2  # so that whatever is accepted fits one message, headers and all
STRANGER_BYTES_MAX = 256 * 1024  # where the body tells who sent it; TaskRouter's attributes have 4 KB at most
HEADER_BYTES_MAX = 32 * 1024  # Twilio sends about 1 KB
OPEN_MAX = 2_000  # requests at once
OPEN_BYTES_MAX = 64 * 1024**2  # of their bodies together
BODY_S = 10.0  # for a body to arrive; Twilio gives up after 5 to 15 s
KEEP_S = 4.5  # from then until it is on disk; Twilio waits 5 s for an answer

KEYED = frozenset({"/webhooks/survey", "/webhooks/flex/task-complete"})  # our own key opens these
UNSIGNED = frozenset({"/webhooks/flex/task-complete"})  # and nothing else opens these: 404
NO_CONTENT = frozenset({"/webhooks/taskrouter"})  # 204, as TaskRouter's documentation asks


class Answer(Struct, frozen=True):
    """A status, and the word for it in the metrics."""

    status: int
    verdict: str
    trace: str = ""  # of its span, where the request was judged
    task_sid: str = ""  # the first it tells of


ACCEPTED = ("stored", "ignored", "dead")
REFUSED = ("unsigned", "forbidden")
"""Verdicts of a 2xx, and of a 403."""

UNAVAILABLE_AGAIN_S = b"1"  # Retry-After


class Webhooks:
    """All routes; holds what bounds them."""

    def __init__(
        self,
        judge: Judge,
        commit: Commit,
        quarantine: Quarantine,
        metrics: Metrics,
        *,
        api_key: str,
    ) -> None:
        self._judge = judge
        self._commit = commit
        self._quarantine = quarantine
        self._metrics = metrics
        self._key = api_key.encode()
        self._open = 0
        self._open_bytes = 0
        self.last_accepted_ms = 0  # when a webhook was answered with 2xx last; 0 while none was

    def route(self, path: str) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        """The ASGI application of one route."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            began, began_ns = time.perf_counter(), time.time_ns()
            self._open += 1
            try:
                answer = await self._answer(path, scope, receive)
            finally:
                self._open -= 1
            await _say(send, answer)
            if trace.sampled(answer.trace) or answer.status >= 500 or answer.verdict == "dead":
                spans.record(_span(path, scope, answer, began_ns))
            if answer.status < 300:
                self.last_accepted_ms = time.time_ns() // 1_000_000
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
        hashed = b"bodySHA256=" in scope["query_string"]  # so whose it is, is known before the body is read
        trusted = keyed or (hashed and self._judge.is_signed_url(path, scope["query_string"], signature))
        most = BODY_BYTES_MAX if trusted else STRANGER_BYTES_MAX
        body, held, more = b"", 0, True
        try:
            async with asyncio.timeout(BODY_S) as limit:
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return Answer(503, "hung_up")
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    held += len(chunk)
                    self._open_bytes += len(chunk)
                    if held > most or self._open_bytes > OPEN_BYTES_MAX:
                        return (
                            Answer(403, "forbidden") if hashed and not trusted else Answer(503, "too_large")
                        )
                    body += chunk
                limit.reschedule(asyncio.get_running_loop().time() + KEEP_S)
                return await self._take(path, scope, body, signature, keyed=keyed)
        except TimeoutError:
            return Answer(503, "too_slow")
        finally:
            self._open_bytes -= held

    async def _take(self, path: str, scope: Scope, body: bytes, signature: str, *, keyed: bool) -> Answer:
        heard = Heard(
            path, scope["method"], scope["query_string"], body, signature, time.time_ns() // 1_000_000
        )
        if not keyed:
            try:
                signed = self._judge.is_signed(heard)
            except ValueError:  # not judged, so not a 403
                return Answer(503, "too_many_fields")
            if not signed:
                self._quarantine.wrong(heard, time.monotonic())
                return Answer(403, "forbidden")
            self._quarantine.right()
        own = spans.start()
        said = trace.follow(own) if trace.sampled(own) else own
        holds, messages = self._judge.keep(heard, said)
        task_sid = next((one.subject for one in holds.events if one.subject.startswith("WT")), "")
        began_ns = time.time_ns()
        try:
            await self._commit.put(messages)
        except (NotKeptError, FullError) as error:
            return Answer(503, "full" if isinstance(error, FullError) else "not_kept", own, task_sid)
        if messages and trace.sampled(said):
            spans.record(
                span.published(
                    TWILIO.name,
                    own=said,
                    parent=own,
                    id_=messages[0].headers[MSG_ID] if len(messages) == 1 else "",
                    count=len(messages),
                    start_ns=began_ns,
                    end_ns=time.time_ns(),
                    about=span.task(task_sid),
                )
            )
        self._metrics.events.labels(path).inc(len(holds.events))
        verdict = "dead" if holds.unreadable else "stored" if holds.events else "ignored"
        return Answer(204 if path in NO_CONTENT else 200, verdict, own, task_sid)

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        return bool(self._key) and hmac.compare_digest(headers.get(b"x-tajo-key", b""), self._key)


def _span(path: str, scope: Scope, answer: Answer, began_ns: int) -> Span:
    return span.received(
        own=answer.trace or spans.start(),
        route=path,
        method=scope["method"],
        status=answer.status,
        verdict=answer.verdict,
        task_sid=answer.task_sid,
        start_ns=began_ns,
        end_ns=time.time_ns(),
    )


async def _say(send: Send, answer: Answer) -> None:
    headers = [(b"content-type", b"application/json")]
    if answer.status == 503:
        headers.append((b"retry-after", UNAVAILABLE_AGAIN_S))
    if answer.status != 204:
        headers.append((b"content-length", b"0"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
