"""Brevo's stand-in, a process of its own: `python -m tests.bench.brevo PORT [CALLS_A_SECOND]`.

The sandbox, but that it answers contacts and events by itself, at once, and keeps when each came: what is measured is the sink.
With a number of calls a second it is the sandbox alone, with that limit in each bucket.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvicorn

from sandbox.app import Sandbox, _body, _config
from sandbox.brevo import BrevoSandbox
from sandbox.limits import UNLIMITED, Limits
from sandbox.rest import TwilioSandbox
from tests.bench import machine

CALLS = "/_bench/calls"
_LIMIT = [
    (b"x-sib-ratelimit-limit", b"5000"),
    (b"x-sib-ratelimit-remaining", b"4999"),
    (b"x-sib-ratelimit-reset", b"1"),
]
# So many a second that the sink never waits: it learns its limit from these.


class Call(msgspec.Struct):
    """A call that came: when, by the machine's monotonic clock."""

    at: float
    path: str
    status: int
    size: int  # commands it carried
    key: str  # the contact's email, or the first event's idempotency key


class StandIn:
    """The ASGI application."""

    def __init__(self, per_s: int) -> None:
        limits = Limits(per_s, None, per_s, None, None) if per_s else UNLIMITED
        self._sandbox = Sandbox(BrevoSandbox(limits=limits))
        self._limited = bool(per_s)
        self._calls: list[Call] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path, at = scope["path"], time.monotonic()
        if path == CALLS:
            await _answer(send, 200, msgspec.json.encode(self._calls))
        elif scope["method"] == "POST" and path in ("/v3/contacts", "/v3/events/batch"):
            await self._told(scope, receive, send, path, at)
        else:
            await self._sandbox(scope, receive, send)

    async def _told(self, scope: dict[str, Any], receive: Any, send: Any, path: str, at: float) -> None:
        body = await _body(receive) or b""
        told = msgspec.json.decode(body)
        batch = path == "/v3/events/batch"
        key = told["events"][0]["event_properties"]["idempotency_key"] if batch else told.get("email", "")
        status = 202 if batch else 201
        if self._limited:

            async def again() -> dict[str, Any]:
                return {"type": "http.request", "body": body, "more_body": False}

            async def noted(message: dict[str, Any]) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            await self._sandbox(scope, again, noted)
        else:
            count = len(told["events"]) if batch else 0
            answer = {"message": "accepted", "count": count} if batch else {"id": len(self._calls) + 1}
            await _answer(send, status, msgspec.json.encode(answer), _LIMIT)
        self._calls.append(Call(at, path, status, len(told["events"]) if batch else 1, key))


async def _answer(send: Any, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


class Brevo(machine.Process):
    """The stand-in as a child."""

    def __init__(self, folder: Path, per_s: int = 0) -> None:
        port = machine.free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            [sys.executable, "-m", "tests.bench.brevo", str(port), str(per_s)], folder / "brevo.log"
        )
        machine.until(self, lambda: httpx.get(f"{self.url}/_sandbox/health", timeout=3).is_success)

    @property
    def calls(self) -> list[Call]:
        """All that came so far."""
        return msgspec.json.decode(httpx.get(self.url + CALLS, timeout=30).content, type=list[Call])

    @property
    def environment(self) -> dict[str, str]:
        """What a sink needs to call it."""
        return {
            "BREVO_API_KEY": "xkeysib-sandbox",
            "TAJO_BREVO_URL": f"{self.url}/v3",
            "TAJO_BREVO_PLAN": "extended",
            "TAJO_BREVO_RATE_FRACTION": "1",
        }


if __name__ == "__main__":
    config = _config(BrevoSandbox(), TwilioSandbox(), host="127.0.0.1", port=int(sys.argv[1]))
    config.app = StandIn(int(sys.argv[2]))
    uvicorn.Server(config).run()
