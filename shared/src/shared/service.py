"""What every service is around its own work: a FastStream application with health and metrics over HTTP."""

import asyncio
import errno
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import structlog
import uvicorn
from faststream.asgi import AsgiFastStream, AsgiResponse, get
from faststream.nats import NatsBroker
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from shared import bus, spans
from shared.heartbeat import Role
from shared.lease import LOOK_S, Lease
from shared.protocol import BoundedProtocol
from shared.pulse import Counts, Pulse
from shared.settings import SettingsError
from shared.vitals import Vitals

CANCEL_AGAIN_S = 0.5
BACKLOG = 2048  # connections that wait to be accepted; Linux allows 4,096

log = structlog.get_logger()

Ready = Callable[[], Awaitable[str]]
"""Why the service cannot do its work just now; an empty text when it can."""

Hook = Callable[[], Awaitable[None]]
Work = Callable[[], Coroutine[Any, Any, None]]

STOP_GRACE_S = 10  # open requests and the batch in hand are finished; the orchestrator's grace must be longer


def build(
    broker: NatsBroker,
    *,
    name: str,
    counts: Counts,
    ready: Ready,
    registry: CollectorRegistry,
    note: Callable[[], str] = str,
    routes: Sequence[tuple[str, Any]] = (),
    at_end: Sequence[Hook] = (),
    work: Sequence[Work] = (),
    lease: Lease | None = None,
    stand_by: Sequence[Work] = (),
) -> AsgiFastStream:
    """An application with `/health/live`, `/health/ready`, `/metrics` and the routes given.

    `note` is what a person should know of a service that is ready; empty when all is well.
    `work` runs beside from when the broker is connected, and is cancelled first of all at the end;
    `at_end` runs after that, before the broker is closed.
    With a `lease`, `work` begins when the lease is ours, and `stand_by` runs until then.  When another has taken the
    lease the process leaves, so that nothing in memory survives into another term; whoever runs us starts us again.
    At the end the lease is let go after `at_end`.
    How it does, with its `counts`, is said every few seconds under its `name` (shared/heartbeat.py).
    The broker connects in the background: the service answers, unready, while NATS is away.
    """
    vitals = Vitals(registry, lease)

    @vitals.watching
    async def state() -> tuple[Role, str]:
        if lease and not working and lease.other and bus.client(broker):
            return "standby", ""
        role: Role = "working" if lease is None or lease.held() else "standby"
        return role, await ready() or _why_not_acting(lease)

    pulse = Pulse(broker, name, state=state, note=note, counts=counts, lease=lease)

    @get
    async def live(_scope: Any) -> AsgiResponse:
        return AsgiResponse(b"live\n", 200)

    @get
    async def readiness(_scope: Any) -> AsgiResponse:
        role, why = await state()
        well = "standby" if role == "standby" else "; ".join(filter(None, ("ready", note())))
        return AsgiResponse(f"{why or well}\n".encode(), 503 if why else 200)

    @get
    async def metrics(_scope: Any) -> AsgiResponse:
        # Not prometheus_client's own application: a header that is no UTF-8 is a 500 there.
        return AsgiResponse(generate_latest(registry), 200, {"content-type": CONTENT_TYPE_LATEST})

    working: list[asyncio.Task[None]] = []
    leading: list[asyncio.Task[None]] = []
    beating: list[asyncio.Task[None]] = []

    def look_at(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("work_failed", error=type(error).__name__)
            leave()

    def run(work: Sequence[Work], among: list[asyncio.Task[None]]) -> None:
        for one in work:
            among.append(task := asyncio.create_task(one()))
            task.add_done_callback(look_at)

    async def lead(lease: Lease) -> None:
        standing_by: list[asyncio.Task[None]] = []
        await lease.lock()
        try:
            while not await lease.acquire():
                if lease.other and not standing_by:
                    run(stand_by, standing_by)
                await asyncio.sleep(LOOK_S)
        finally:
            await cancel(standing_by)
        run(work, working)
        await lease.hold()
        leave()

    async def begin() -> None:
        run([pulse.beat], beating)
        if lease:
            run([lambda: lead(lease)], leading)
        else:
            run(work, working)

    async def end() -> None:
        for result in await cancel(working):
            if isinstance(result, Exception):
                raise result

    async def let_go() -> None:
        await cancel([*leading, *beating])
        if lease:
            await lease.release()
        await pulse.end()

    return _Application(
        broker,
        logger=None,
        asgi_routes=[
            *routes,
            ("/health/live", live),
            ("/health/ready", readiness),
            ("/metrics", metrics),
        ],
        after_startup=[begin],
        on_shutdown=[end, *at_end, let_go],
        after_shutdown=[_send_spans],
    )


class _Application(AsgiFastStream):
    """Answers a path it does not know like anybody else's server; FastStream's own words are for its developers."""

    async def not_found(self, scope: Any, receive: Any, send: Any) -> None:
        await AsgiResponse(b"not found\n", 404)(scope, receive, send)


async def _send_spans() -> None:
    await asyncio.to_thread(spans.end)


def leave() -> None:
    """Leave in order; whoever runs us starts us again."""
    signal.raise_signal(signal.SIGTERM)


def _why_not_acting(lease: Lease | None) -> str:
    if lease is None or lease.held():
        return ""
    return "the lease is not ours" if lease.instance else "another process uses our data directory"


async def cancel(tasks: Sequence[asyncio.Task[None]]) -> list[BaseException | None]:
    """End them, and return what each ended with.

    What goes on is cancelled again: nats-py swallows a cancellation that comes while it flushes (`_flush_pending` in
    https://github.com/nats-io/nats.py/blob/main/nats/src/nats/aio/client.py).
    """
    going = set(tasks)
    while going:
        for task in going:
            task.cancel()
        _, going = await asyncio.wait(going, timeout=CANCEL_AGAIN_S)
    return [None if task.cancelled() else task.exception() for task in tasks]


def listen(variable: str, host: str, port: int) -> socket.socket:
    """Listen, before anything else is begun; what comes waits until `serve`.  Raises SettingsError, which names the variable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            what = f"{host}:{port} is in use: stop what listens there, or set {variable}"
        else:
            what = f"nothing can listen on {host}:{port} ({error.strerror}): set {variable}, or the address beside it"
        raise SettingsError(what) from error


def serve(app: AsgiFastStream, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT: stop accepting, finish what is open, then leave the broker."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        access_log=False,
        log_config=None,  # its lines are ours: shared/log.py
        log_level="error",  # its warnings are of what a stranger sends, one or two a request
        server_header=False,
        proxy_headers=False,  # nobody asks from where a request came; the signature says from whom
        timeout_keep_alive=65,  # longer than the 60 s of common proxies, or they meet a closed connection
        timeout_graceful_shutdown=STOP_GRACE_S,
    )
    with suppress(KeyboardInterrupt):  # raised anew when all has ended
        uvicorn.Server(config).run(sockets=[listening])
