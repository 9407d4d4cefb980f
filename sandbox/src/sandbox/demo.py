"""The demo: everything on this machine, on free ports, in a directory that is thrown away after it."""

import asyncio
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import nats
from nats.js.errors import NotFoundError

from sandbox.brevo import BrevoSandbox
from sandbox.rest import TwilioSandbox

READY_S = 60.0  # until all services are ready; two seconds are usual, a first start compiles everything
STOP_S = 30.0  # for `tajo up` to stop its children in order
LOG_LINES = 40  # shown where something fails

PRODUCTS = ("FLEX", "TASKROUTER", "CONVERSATIONS", "EVENTS")
SERVICES = ("ingest", "mapper", "brevo-sink", "poller")


class DemoError(Exception):
    """Why the demo cannot go on, and the end of the log."""


@dataclass(frozen=True)
class Stack:
    """What runs: where to reach it, and what it was told."""

    ports: Mapping[str, int]
    environment: Mapping[str, str]
    log: Path

    @property
    def ingest(self) -> str:
        """Where webhooks go."""
        return f"http://127.0.0.1:{self.ports['ingest']}"

    @property
    def nats(self) -> str:
        """The broker."""
        return f"nats://127.0.0.1:{self.ports['nats']}"


def root() -> Path:
    """The repository: here or above.  Raises DemoError."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "config/tajo.yaml").exists() and (folder / "deploy/nats/nats.conf").exists():
            return folder
    raise DemoError("config/tajo.yaml is neither here nor above: run the demo in the repository")


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """A free port for each, all different."""
    with ExitStack() as open_:
        listeners = {name: open_.enter_context(socket.create_server(("127.0.0.1", 0))) for name in names}
        return {name: int(listener.getsockname()[1]) for name, listener in listeners.items()}


def environment(
    ports: Mapping[str, int], *, data: Path, home: Path, url: str, brevo: BrevoSandbox, twilio: TwilioSandbox
) -> dict[str, str]:
    """What `tajo up` is told: made-up secrets, and nothing of what this shell has set for it."""
    ours = ("TAJO_", "TWILIO_", "BREVO_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **inherited,
        "TAJO_NATS_URL": f"nats://127.0.0.1:{ports['nats']}",
        "TAJO_DATA_DIR": str(data),
        "TAJO_CONFIG": str(home / "config/tajo.yaml"),
        "TAJO_PUBLIC_URL": f"http://127.0.0.1:{ports['ingest']}",
        "TAJO_BREVO_URL": f"{url}/v3",
        **{f"TAJO_TWILIO_{name}_URL": f"{url}/twilio/{name.lower()}" for name in PRODUCTS},
        "TWILIO_ACCOUNT_SID": twilio.account_sid,
        "TWILIO_AUTH_TOKEN": twilio.token,
        "BREVO_API_KEY": brevo.api_key,
        "TAJO_API_KEY": secrets.token_urlsafe(24),
        **{f"TAJO_{name.upper().replace('-', '_')}_PORT": str(ports[name]) for name in SERVICES},
    }


@asynccontextmanager
async def running(
    *, data: Path, url: str, brevo: BrevoSandbox, twilio: TwilioSandbox
) -> AsyncIterator[Stack]:
    """`tajo up` as a child, ready; it is stopped at the end, whatever happens.  Raises DemoError."""
    home = root()
    ports = free_ports(("nats", *SERVICES))
    told = environment(ports, data=data, home=home, url=url, brevo=brevo, twilio=twilio)
    stack = Stack(ports, told, data / "tajo.log")
    with stack.log.open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tajo", "up", cwd=home, env=told, stdout=log, stderr=log, start_new_session=True
        )  # fmt: skip
        try:
            await _until_ready(stack, child)
            yield stack
        finally:
            await _stop(child)


async def _until_ready(stack: Stack, child: asyncio.subprocess.Process) -> None:
    end = time.monotonic() + READY_S
    waiting = list(SERVICES)
    async with httpx.AsyncClient(timeout=2.0) as client:
        while waiting:
            for name in list(waiting):
                if await _ready(client, stack.ports[name]):
                    waiting.remove(name)
            if child.returncode is not None:
                raise DemoError(f"tajo up ended with {child.returncode}:\n{tail(stack.log)}")
            if waiting and time.monotonic() > end:
                names = ", ".join(waiting)
                raise DemoError(f"not ready within {READY_S:g} s: {names}\n{tail(stack.log)}")
            await asyncio.sleep(0.05)


async def _ready(client: httpx.AsyncClient, port: int) -> bool:
    try:
        answer = await client.get(f"http://127.0.0.1:{port}/health/ready")
    except httpx.TransportError:
        return False
    return answer.status_code == 200


async def _stop(child: asyncio.subprocess.Process) -> None:
    """SIGTERM, its grace, SIGKILL."""
    if child.returncode is not None:
        return
    child.terminate()
    try:
        await asyncio.wait_for(child.wait(), STOP_S)
    except TimeoutError:
        child.kill()
        await child.wait()


def tail(log: Path) -> str:
    """The end of the log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])


async def stored(nats_url: str) -> dict[str, int]:
    """How many messages each of our streams holds."""
    connection = await nats.connect(nats_url, connect_timeout=5)
    try:
        counts = {}
        for name in ("TWILIO", "BREVO", "RECEIPTS", "DEAD"):
            try:
                counts[name] = (await connection.jetstream().stream_info(name)).state.messages
            except NotFoundError:
                counts[name] = 0
        return counts
    finally:
        await connection.close()
