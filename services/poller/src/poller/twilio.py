"""Calls to Twilio's REST API: at the allowed rate, tried again where that can help, and what came back as a value.

httpx, and not Twilio's own client, which is synchronous, knows no rate and pages by number where it can.
Every call is safe to repeat but a POST, which is repeated only after a 429 or where it never left: Twilio has not
carried it out then.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from statistics import median
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import msgspec
import structlog
from msgspec import Struct

from poller import answer
from poller.answer import Absent
from poller.endpoints import LIMITS, Endpoint, Product
from poller.rates import BACKFILL_SHARE, Rates
from shared import span, spans
from shared.body import NOT_JSON
from shared.config import RateName
from shared.verdict import Done, Pause, Reject, Retry

CONNECT_S, READ_S = 5.0, 30.0  # a page of 1,000 events is 2.5 MB
CONNECTIONS = 8
TRIES_MAX = 8  # ~1 min with the delays between; then whoever asked decides
PAGE_BYTES_MAX = 64 * 1024**2  # 1,000 events with attributes of 4 KB three times over are 15 MB
CLOCK_ANSWERS = 5  # of which one may be wrong without consequence
NAP_S = 1.0  # the longest sleep before the rates are asked again

log = structlog.get_logger()

FORM = "application/x-www-form-urlencoded"

_NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


Failed = Retry | Reject | Pause | Absent


Called = Callable[[RateName, str], None]


class TwilioError(Exception):
    """A call that did not work; `verdict` says whether it may later.  No text holds what was asked or answered."""

    def __init__(self, endpoint: Endpoint, verdict: Failed) -> None:
        self.verdict = verdict
        remedy = f"; {verdict.remedy}" if isinstance(verdict, Pause) else ""
        super().__init__(f"{endpoint.method} {endpoint.path}: {verdict.why}{remedy}")


@dataclass(frozen=True)
class Credentials:
    """The account, and its auth token or an API key (`SK…`).  Never printed."""

    account_sid: str
    user: str
    secret: str

    def __repr__(self) -> str:
        return f"Credentials({self.account_sid})"


@dataclass(frozen=True)
class Page:
    """Part of a list.  `items` are JSON as received."""

    items: list[msgspec.Raw]
    last: bool


@dataclass(frozen=True)
class _Reply:
    """A JSON object, its values as received."""

    fields: dict[str, msgspec.Raw]

    def object(self) -> dict[str, Any]:
        return {name: msgspec.json.decode(value) for name, value in self.fields.items()}

    def items(self, key: str) -> list[msgspec.Raw]:
        return msgspec.json.decode(self.fields.get(key, b"null"), type=list[msgspec.Raw] | None) or []

    def next_page_url(self) -> str:
        meta = msgspec.json.decode(self.fields.get("meta", b"null"), type=_Meta | None)
        return (meta and meta.next_page_url) or ""


class _Meta(Struct):
    next_page_url: str | None = None


class _TooLargeError(Exception):
    """Larger than any answer Twilio documents."""


URLS: dict[Product, str] = {
    "taskrouter": "https://taskrouter.twilio.com",
    "conversations": "https://conversations.twilio.com",
    "flex": "https://flex-api.twilio.com",
    "events": "https://events.twilio.com",
}
"""Of the region US1; others have their own: https://www.twilio.com/docs/global-infrastructure"""


class Twilio:
    """One account.  Everything that calls it shares one of these, and so the rates."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        urls: Mapping[Product, str],
        rates: Rates | None = None,
        tries_max: int = TRIES_MAX,
        log_calls: bool = False,
        called: Called = lambda _limit, _status: None,
    ) -> None:
        """`urls` replace those of US1; `called` hears of each call's narrowest limit, and what was answered."""
        self.account_sid = credentials.account_sid
        self._urls = {product: httpx.URL(url) for product, url in {**URLS, **urls}.items()}
        self._rates = rates or Rates(LIMITS, 1.0)
        self._tries_max = tries_max
        self._log_calls = log_calls
        self._called = called
        self._ended = asyncio.Event()
        self._ahead_s = deque[float](maxlen=CLOCK_ANSWERS)  # Twilio's clock before ours, by its last answers
        self._client = httpx.AsyncClient(
            auth=(credentials.user, credentials.secret),
            headers={"accept": "application/json", "user-agent": "tajo-twilio-flex"},
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def now_ms(self) -> int:
        """What Twilio's clock says, by most of its last answers; ours before there is one."""
        return round((time.time() + (median(self._ahead_s) if self._ahead_s else 0.0)) * 1000)

    async def fetch(
        self, endpoint: Endpoint, *, backfill: bool = False, **named: str
    ) -> dict[str, Any] | None:
        """One thing: `fetch(WORKSPACE, WorkspaceSid="WS…")`; None where there is none.  Raises TwilioError."""
        try:
            reply = await self._call(endpoint, self._url(endpoint, named), backfill=backfill)
        except TwilioError as error:
            if isinstance(error.verdict, Absent):
                return None
            raise
        return self._object(endpoint, reply)

    async def pages(self, endpoint: Endpoint, *, backfill: bool = False, **named: str) -> AsyncIterator[Page]:
        """A list, page after page: `pages(EVENTS, WorkspaceSid="WS…", StartDate="…")`.

        A list that is absent has no pages.  Raises TwilioError.
        """
        url = self._url(endpoint, {**named, "PageSize": str(endpoint.page_size)})
        seen = set[bytes]()  # some 100 bytes for each page
        while url.raw_path not in seen:
            seen.add(url.raw_path)
            try:
                reply = await self._call(endpoint, url, backfill=backfill)
            except TwilioError as error:
                if (
                    isinstance(error.verdict, Absent) and len(seen) == 1
                ):  # a later page that is gone is not the end
                    return
                raise
            try:
                items, following = reply.items(endpoint.key), reply.next_page_url()
                # Twilio's own URL, but at the address we were given: the credentials go nowhere else.
                next_url = url.copy_with(raw_path=httpx.URL(following).raw_path)
            except (*NOT_JSON, httpx.InvalidURL):
                raise TwilioError(endpoint, Retry("an answer that is no page", answer.DELAY_MAX_S)) from None
            yield Page(items, last=not following)
            if not following:
                return
            url = next_url
        raise TwilioError(endpoint, Reject("its pages lead back to one that was read"))

    async def create(
        self, endpoint: Endpoint, form: Sequence[tuple[str, str]], **sids: str
    ) -> dict[str, Any]:
        """Make or change something; a form field may stand several times.  Raises TwilioError."""
        return self._object(endpoint, await self._call(endpoint, self._url(endpoint, sids), form=form))

    async def delete(self, endpoint: Endpoint, **sids: str) -> None:
        """Remove something; what is not there is removed.  Raises TwilioError."""
        try:
            await self._call(endpoint, self._url(endpoint, sids))
        except TwilioError as error:
            if not isinstance(error.verdict, Absent):
                raise

    def _object(self, endpoint: Endpoint, reply: _Reply) -> dict[str, Any]:
        try:
            return reply.object()
        except NOT_JSON:
            raise TwilioError(endpoint, Retry("an answer that cannot be read", answer.DELAY_MAX_S)) from None

    async def _call(
        self,
        endpoint: Endpoint,
        url: httpx.URL,
        *,
        form: Sequence[tuple[str, str]] = (),
        backfill: bool = False,
    ) -> _Reply:
        """Until it works, cannot, or was tried often enough.  Raises TwilioError."""
        verdict: Failed = Retry("not tried", 0.0)
        for tries in range(1, self._tries_max + 1):
            if isinstance(verdict, Retry):
                await asyncio.sleep(verdict.after_s)
            await self._turn(endpoint, BACKFILL_SHARE if backfill else 1.0)
            delay_s = answer.delay_s(tries, random.random())  # noqa: S311 - spreads retries, guards nothing
            got = await self._try(endpoint, url, form, delay_s)
            if isinstance(got, _Reply):
                return got
            verdict = got
            if not isinstance(verdict, Retry):
                break
        raise TwilioError(endpoint, verdict)

    async def _turn(self, endpoint: Endpoint, share: float) -> None:
        """Wait until one more call is allowed, and take it.  `_try` gives it back."""
        while (wait_s := self._rates.wait_s(endpoint.counted, time.monotonic(), share)) != 0.0:
            if wait_s is None:
                self._ended.clear()
                await self._ended.wait()
            else:
                await asyncio.sleep(min(wait_s, NAP_S))
        self._rates.begin(endpoint.counted)

    async def _try(
        self, endpoint: Endpoint, url: httpx.URL, form: Sequence[tuple[str, str]], delay_s: float
    ) -> _Reply | Failed:
        once = endpoint.method == "POST"
        began_ns = time.time_ns()
        try:
            status, headers, body = await self._send(endpoint, url, form)
        except _TooLargeError:
            self._tell(endpoint, began_ns, error="too_large")
            return Reject(f"an answer of more than {PAGE_BYTES_MAX} bytes")
        except httpx.HTTPError as error:
            self._called(endpoint.counted[-1], "lost")
            why = type(error).__name__
            self._tell(endpoint, began_ns, error=why)
            if once and not isinstance(error, _NEVER_LEFT):
                return Reject(f"{why}: it may have taken effect")
            return Retry(why, delay_s)
        finally:
            self._rates.end(endpoint.counted, time.monotonic())
            self._ended.set()
        self._called(endpoint.counted[-1], str(status))
        self._tell(endpoint, began_ns, status=status, request_id=headers.get("twilio-request-id", ""))
        self._rates.learn(endpoint.counted[-1], headers)
        verdict = answer.of(status, headers, body, now_s=time.time(), delay_s=delay_s)
        if isinstance(verdict, Done):
            fields = {} if status == httpx.codes.NO_CONTENT else _fields(body)
            if fields is not None:
                self._ahead_s.append(_ahead_s(headers, time.time()))
                return _Reply(fields)
            verdict = Retry("an answer that is no JSON object", delay_s)
        if isinstance(verdict, Retry) and status == httpx.codes.TOO_MANY_REQUESTS:
            self._rates.close(endpoint.counted[-1], time.monotonic() + verdict.after_s)
        elif isinstance(verdict, Retry) and once:
            return Reject(f"{verdict.why}: it may have taken effect")
        return verdict

    def _tell(
        self, endpoint: Endpoint, began_ns: int, *, status: int = 0, request_id: str = "", error: str = ""
    ) -> None:
        """A span, and a line in the log where that is wished; neither holds what stands in path or query."""
        now_ns, url = time.time_ns(), str(self._urls[endpoint.product])
        route = endpoint.path
        spans.call(
            span.called(
                endpoint.method, url, route, start_ns=began_ns, end_ns=now_ns, status=status, error=error
            )
        )
        if self._log_calls:
            log.info(
                "twilio_call",
                method=endpoint.method,
                route=route,
                status=status or None,
                ms=round((now_ns - began_ns) / 1e6, 1),
                **({"request_id": request_id} if request_id else {}),
                **({"error": error} if error else {}),
            )

    async def _send(
        self, endpoint: Endpoint, url: httpx.URL, form: Sequence[tuple[str, str]]
    ) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body.  Raises httpx.HTTPError and _TooLargeError."""
        content, kind = (urlencode(form), {"content-type": FORM}) if form else (None, {})
        async with self._client.stream(endpoint.method, url, content=content, headers=kind) as reply:
            chunks, size = [], 0
            async for chunk in reply.aiter_bytes():
                chunks.append(chunk)
                size += len(chunk)
                if size > PAGE_BYTES_MAX:
                    raise _TooLargeError
            return reply.status_code, reply.headers, b"".join(chunks)

    def _url(self, endpoint: Endpoint, named: Mapping[str, str]) -> httpx.URL:
        """Sids go into the path, the rest becomes the query.  Raises TypeError for what the endpoint does not take."""
        base = self._urls[endpoint.product]
        query = {name: value for name, value in named.items() if f"{{{name}}}" not in endpoint.path}
        for name in query:
            if name != "PageSize" and name not in endpoint.takes:
                raise TypeError(f"{endpoint.path} takes no {name}")
        path = endpoint.path.format(**{name: quote(value, safe="") for name, value in named.items()})
        return base.copy_with(path=base.path.rstrip("/") + path, params=query or None)


def _fields(body: bytes) -> dict[str, msgspec.Raw] | None:
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except NOT_JSON:
        return None


def _ahead_s(headers: Mapping[str, str], now_s: float) -> float:
    """By how much the header Date, which has whole seconds, is ahead of our clock; 0 where there is none."""
    try:
        ahead_s = parsedate_to_datetime(headers.get("date", "")).timestamp() - now_s
    except ValueError:
        return 0.0
    return ahead_s if abs(ahead_s) > 1.0 else 0.0
