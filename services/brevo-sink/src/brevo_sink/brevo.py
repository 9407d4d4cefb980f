"""Calls to Brevo's API: at the allowed rate, over kept-alive connections, and what came back as a value.

httpx, and not Brevo's own client, which repeats POST /events by itself and takes a 207 for success.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import httpx
import msgspec
import structlog
from msgspec import Struct

from brevo_sink.budget import BucketName, Budget, bucket_of
from brevo_sink.metrics import Metrics
from shared import span, spans
from shared.settings import SettingsError, secure_url

CONNECT_S = 5.0
TIMEOUT_S = 20.0
ANSWER_BYTES_MAX = 16 * 1024**2  # also of a file of what an import refused: its rows and as much again
SERVER_ERROR = 500
UPSERT_CALLS = 16  # at once; at 60 a second, the most Brevo allows, they may take 250 ms each
EVENT_CALLS = 2  # batches at once
CONNECTIONS = UPSERT_CALLS + EVENT_CALLS + 2  # the rest asks, renames and deletes
NAP_S = 1.0  # the longest sleep before the budget is asked again: it may have learned

_JSON = ((b"content-type", b"application/json"),)

log = structlog.get_logger()


class Reply(Struct, frozen=True):
    """Brevo answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotSent(Struct, frozen=True):
    """The call never left: nothing took effect."""

    why: str


class Lost(Struct, frozen=True):
    """The call left, and no answer came: it may have taken effect."""

    why: str


Result = Reply | NotSent | Lost


class _MayNotError(Exception):
    """Raised in the midst of a request, before its body has left."""


_NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Brevo:
    """One account."""

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        budget: Budget,
        metrics: Metrics,
        timeout_s: float = TIMEOUT_S,
        log_calls: bool,
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may` says whether we may call just now: a lease's `held`."""
        self.budget = budget
        self._may = may
        self._metrics = metrics
        metrics.measure(budget)
        self._log_calls = log_calls
        self._url = url
        self._headers = httpx.Headers({
            "api-key": api_key,
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",
            "user-agent": "tajo-twilio-flex",
        })  # fmt: skip
        self._timeout_s = timeout_s
        self._timeout = httpx.Timeout(timeout_s, connect=CONNECT_S).as_dict()
        # httpx without its client, whose redirects, cookies and hooks nothing here uses, and a transport for each
        # connection, because a pool looks at all it has for every call: both cost as much as the call itself.
        context = httpx.create_ssl_context(trust_env=False)
        one = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        self._transports = [
            httpx.AsyncHTTPTransport(verify=context, limits=one, trust_env=False) for _ in range(CONNECTIONS)
        ]
        # The one used last goes first: it is the likeliest to be open.
        self._free = asyncio.LifoQueue[httpx.AsyncHTTPTransport]()
        for transport in self._transports:
            self._free.put_nowait(transport)

    async def close(self) -> None:
        """Close the connections."""
        for transport in self._transports:
            await transport.aclose()

    async def turn(self, bucket: BucketName) -> None:
        """Wait until one more call is allowed, and take it."""
        began = time.monotonic()
        while wait_s := self.budget[bucket].wait_s(time.monotonic()):  # noqa: ASYNC110 - it is time we wait for
            await asyncio.sleep(min(wait_s, NAP_S))
        self.budget[bucket].take(time.monotonic())
        self._metrics.waited.labels(bucket).inc(time.monotonic() - began)

    def no_turn(self, bucket: BucketName) -> None:
        """A turn was taken and no call is made."""
        self.budget[bucket].unanswered()

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Sequence[tuple[str, str]] = (),
        kind: str = "",
    ) -> Result:
        """Make a call whose `turn` was taken.

        `kind` is that of the command the call carries out, where it carries out one: so an outcome that nobody knows is counted.
        """
        bucket, began_ns = bucket_of(method, path), time.time_ns()
        try:
            answer, body = await self._exchange(self._request(method, path, json, params))
        except _MayNotError:
            self._metrics.calls.labels(bucket, "not_ours").inc()
            return NotSent("the lease is not ours")
        except _NEVER_LEFT as error:
            self._metrics.calls.labels(bucket, "unreachable").inc()
            self._tell(method, path, began_ns, error=type(error).__name__)
            return NotSent(type(error).__name__)
        except httpx.HTTPError as error:
            self._metrics.calls.labels(bucket, "lost").inc()
            self._tell(method, path, began_ns, error=type(error).__name__)
            self._unknown(kind)
            return Lost(type(error).__name__)
        finally:
            self.budget[bucket].unanswered()
        self._metrics.calls.labels(bucket, str(answer.status_code)).inc()
        self._metrics.call_seconds.labels(bucket).observe((time.time_ns() - began_ns) / 1e9)
        self.budget[bucket].answered(answer.status_code, answer.headers, time.monotonic())
        if answer.status_code >= SERVER_ERROR:
            self._unknown(kind)
        request_id = answer.headers.get("sib-request-id", "")
        self._tell(method, path, began_ns, status=answer.status_code, request_id=request_id)
        return Reply(answer.status_code, answer.headers, body)

    def _request(self, method: str, path: str, json: Any, params: Sequence[tuple[str, str]]) -> httpx.Request:
        return httpx.Request(
            method,
            _url(f"{self._url}{path}"),
            params=list(params) or None,
            headers=[*self._headers.raw, *_JSON] if json is not None else self._headers,
            content=None if json is None else msgspec.json.encode(json),
            extensions={"timeout": self._timeout},
        )

    async def _trace(self, answered: asyncio.Timeout, event: str, _info: Any) -> None:
        """Hear how far a call is.  https://www.encode.io/httpcore/extensions/#trace

        Whether we may is looked at in the last moment, when the connection is there: to wait for one may take longer
        than a lease.
        """
        match event:
            case "http11.send_request_headers.started" | "http11.send_request_body.started":
                if not self._may():
                    raise _MayNotError
            case "http11.send_request_body.complete":
                answered.reschedule(asyncio.get_running_loop().time() + self._timeout_s)

    async def _exchange(self, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        """Raises httpx.HTTPError: also for an answer that comes bit by bit for too long, or without end.

        The time of an answer begins when all of the call has left, which has as long: of an import that is 8 MB.
        """
        transport = await self._free.get()
        try:
            async with asyncio.timeout(None) as answered:
                request.extensions["trace"] = partial(self._trace, answered)
                answer = await transport.handle_async_request(request)
                try:
                    return answer, await _body(answer)
                finally:
                    await answer.aclose()
        except TimeoutError as error:
            raise httpx.ReadTimeout("the whole answer") from error
        finally:
            self._free.put_nowait(transport)

    async def file(self, url: str) -> bytes | None:
        """A file Brevo made for us; None where it cannot be had.  It stands elsewhere, so our key does not go along."""
        try:
            secure_url("the file", url, allow_http=False)
            async with (
                httpx.AsyncClient(timeout=CONNECT_S, trust_env=False) as client,
                client.stream("GET", url) as answer,
            ):
                body = await _body(answer)
                return body if answer.status_code == httpx.codes.OK else None
        except (SettingsError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            log.warning("file_not_read", error=type(error).__name__)
            return None

    def _tell(
        self, method: str, path: str, began_ns: int, *, status: int = 0, request_id: str = "", error: str = ""
    ) -> None:
        """A span, and a line in the log where that is wished, that name nobody."""
        now_ns, route = time.time_ns(), _route(path)
        if spans.recording():
            spans.call(
                span.called(
                    method, self._url, route, start_ns=began_ns, end_ns=now_ns, status=status, error=error
                )
            )
        if self._log_calls:
            log.info(
                "brevo_call",
                method=method,
                route=route,
                status=status or None,
                ms=round((now_ns - began_ns) / 1e6, 1),
                **({"request_id": request_id} if request_id else {}),
                **({"error": error} if error else {}),
            )

    def _unknown(self, kind: str) -> None:
        if kind:
            self._metrics.ambiguous.labels(kind).inc()


async def _body(answer: httpx.Response) -> bytes:
    """At most ANSWER_BYTES_MAX.  Raises httpx.HTTPError."""
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise httpx.ReadError("the answer is too large")
    return bytes(body)


_url = lru_cache(maxsize=64)(httpx.URL)


def _route(path: str) -> str:
    """The path without whom it names."""
    first, _, identifier = path.removeprefix("/contacts/").partition("/")
    named = path.startswith("/contacts/") and first not in ("attributes", "lists") and not identifier
    return "/contacts/{identifier}" if named else path
