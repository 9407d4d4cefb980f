"""The sandbox on the network: Brevo under /v3, Twilio under /twilio, faults and state of Brevo under /_sandbox."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import parse_qs

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandbox.brevo import ADMIN, BASE, BrevoSandbox
from sandbox.faults import Fault
from sandbox.http import Answer, Asked, refused
from sandbox.rest import TwilioSandbox

BODY_BYTES_MAX = 10 * 1024**2  # the largest body Brevo documents, that of an import
CONNECTION = "sandbox.connection"  # in the scope: the transport, so that a fault can cut it

_FILE = re.compile(r"GET /imports/(\d+)/(\w+)\.csv")

Scope = MutableMapping[str, Any]


class Sandbox:
    """The ASGI application, to be served by `serving` or `serve`."""

    def __init__(self, brevo: BrevoSandbox, twilio: TwilioSandbox | None = None) -> None:
        self.brevo = brevo
        self._apis: tuple[BrevoSandbox | TwilioSandbox, ...] = (brevo, twilio) if twilio else (brevo,)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer one call, with the fault that was asked for it."""
        body = await _body(receive)
        api = next((api for api in self._apis if scope["path"].startswith(f"{api.base}/")), None)
        if body is None:
            await _send(send, refused(413, "bad_request", "The body is too large"))
        elif api:
            await self._call(api, scope, receive, send, body)
        else:
            await _send(send, self._admin(scope["method"], scope["path"], body))

    async def _call(
        self, api: BrevoSandbox | TwilioSandbox, scope: Scope, receive: Any, send: Any, body: bytes
    ) -> None:
        method, path = scope["method"], scope["path"]
        query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
        asked = Asked(method, path.removeprefix(api.base), query, body)
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        fault = api.take_fault(method, path)
        if fault is None:
            answer = api.answer(asked, headers)
        else:
            await asyncio.sleep(fault.seconds)
            applied = api.answer(asked, headers) if fault.applies else None
            answer = applied if applied and fault.kind == "latency" else api.fault_answer(fault)
        heard = fault is None or fault.answers
        extra = api.record(method, path, answer.status if heard else 0)
        if heard:
            await _send(send, answer, extra)
            return
        if fault and fault.kind.startswith("reset"):
            scope[CONNECTION].abort()
        while (await receive())["type"] != "http.disconnect":
            pass

    def _admin(self, method: str, path: str, body: bytes) -> Answer:
        """What a person or a test outside this process asks of the sandbox itself."""
        match f"{method} {path.removeprefix(ADMIN)}" if path.startswith(f"{ADMIN}/") else "":
            case "GET /state":
                return Answer(200, self.brevo.state())
            case file if match := _FILE.fullmatch(file):
                return self.brevo.imports.file(match[1], match[2])
            case "GET /health":
                return Answer(200, {"status": "ok"})
            case "DELETE /faults":
                self.brevo.faults.clear()
                self.brevo.event_log.visible_after_s = 0.0
                return Answer(204)
            case "POST /faults":
                return self._fault(body)
            case _:
                return refused(
                    404, "document_not_found", f"The sandbox has Brevo at {BASE}, itself at {ADMIN}"
                )

    def _fault(self, body: bytes) -> Answer:
        """{"kind": "status", "status": 429, "times": 2, "path": "/v3/events/batch"}, or kind visibility_delay."""
        try:
            asked = json.loads(body)
            if asked["kind"] == "visibility_delay":
                self.brevo.event_log.visible_after_s = float(asked["seconds"])
            else:
                self.brevo.faults.append(msgspec.convert(asked, Fault))
        except (ValueError, TypeError, KeyError) as error:  # a msgspec.ValidationError is a ValueError
            return refused(400, "bad_request", f"No such fault: {error}")
        return Answer(201, {"faults": len(self.brevo.faults)})


async def _body(receive: Any) -> bytes | None:
    """The whole body, or None where it is larger than BODY_BYTES_MAX."""
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > BODY_BYTES_MAX:
            return None
        more = message.get("more_body", False)
    return b"".join(chunks)


async def _send(send: Any, answer: Answer, extra: Mapping[str, str] | None = None) -> None:
    text = isinstance(answer.body, str)
    body = b"" if answer.body is None else answer.body.encode() if text else json.dumps(answer.body).encode()
    headers = {**answer.headers, **(extra or {})}
    if body:
        headers["content-type"] = "text/plain" if text else "application/json"
    if answer.status != 204:  # a 204 has neither body nor length
        headers["content-length"] = str(len(body))
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


class _Protocol(HttpToolsProtocol):
    """uvicorn's own, with the connection put within reach of a fault."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CONNECTION] = self.transport  # type: ignore[literal-required]


class _Server(uvicorn.Server):
    """A server inside somebody else's loop: the signals stay theirs."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(brevo: BrevoSandbox, twilio: TwilioSandbox | None, **where: Any) -> uvicorn.Config:
    return uvicorn.Config(
        Sandbox(brevo, twilio),
        http=_Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=twilio is None,  # the local Twilio has its own clock
        timeout_graceful_shutdown=1,  # s; calls that hang by request would keep it open
        **where,
    )


@asynccontextmanager
async def listening(config: uvicorn.Config, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve any application in the running loop, on a free port if none is given; gives http://host:port."""
    with socket.create_server((host, port)) as listener:
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        # The socket listens already: a call made before the server runs waits, and is not refused.
        try:
            yield f"http://{host}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running
            for connection in list(server.server_state.connections):  # of callers that still call
                connection.transport.abort()
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(brevo: BrevoSandbox, twilio: TwilioSandbox | None = None) -> AsyncIterator[str]:
    """Serve both in the running loop, on a free port; gives http://127.0.0.1:port, Brevo is at /v3 there."""
    async with listening(_config(brevo, twilio)) as url:
        yield url


def serve(brevo: BrevoSandbox, twilio: TwilioSandbox, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    uvicorn.Server(_config(brevo, twilio, host=host, port=port)).run()
