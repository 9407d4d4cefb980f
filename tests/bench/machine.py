"""Processes of the bench: the broker and the services as they run in production, each with a folder and port of its own,
and what the kernel says of them.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import httpx
import nats
from nats.js.api import StreamState

from sandbox.twilio import ACCOUNT_SID
from shared.bootstrap import bootstrap
from shared.topology import Stream
from tajo import nats_server

ROOT = Path(__file__).parents[2]
PUBLIC_URL, TOKEN = "https://hooks.example.com", "bench"
STARTS_S = 60.0  # until a process answers; a machine with other work is slow
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
NOWHERE = "http://127.0.0.1:9"  # where nothing listens


class Process:
    """A child and what it costs; ended when its `with` is over."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},
                stdout=file,
                stderr=file,
                cwd=ROOT,
            )
        self.pid = self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def cpu_s(self) -> float:
        """As `cpu_s` below."""
        return cpu_s(self.pid)

    @property
    def peak_mb(self) -> float:
        """The most memory it ever had."""
        return memory_mb(self.pid, "VmHWM")

    def alive(self) -> None:
        """Raises where it has ended, with what it wrote."""
        if self._popen.poll() is not None:
            raise RuntimeError(f"it ended with {self._popen.returncode}:\n{self.log.read_text()[-4000:]}")

    def end(self, how: int = signal.SIGTERM) -> None:
        """Send a signal, and wait; SIGKILL after 30 s."""
        if self._popen.poll() is None:
            self._popen.send_signal(how)
            try:
                self._popen.wait(30)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()


def settings(folder: Path, nats_url: str) -> dict[str, str]:
    """What every service is told; `folder` is its data directory."""
    return {
        "TAJO_NATS_URL": nats_url, "TAJO_DATA_DIR": str(folder), "TAJO_CONFIG": str(ROOT / "config/tajo.yaml"),
        "TAJO_PUBLIC_URL": PUBLIC_URL, "TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": TOKEN,
        **{f"TAJO_TWILIO_{one}_URL": NOWHERE for one in ("FLEX", "TASKROUTER", "CONVERSATIONS", "EVENTS")},
    }  # fmt: skip


class Service(Process):
    """One of our services."""

    def __init__(self, name: str, folder: Path, nats_url: str, **environment: str) -> None:
        """`folder` is its data directory."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        own = {f"TAJO_{name.upper().replace('-', '_')}_PORT": str(port)}
        given = {**settings(folder, nats_url), **own, **environment}
        module = name.replace("-", "_")
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__([sys.executable, "-m", module], folder / f"{name}.log", given)

    def ready(self) -> "Service":
        """Return once it says so."""
        until(self, lambda: httpx.get(f"{self.url}/health/ready", timeout=3).status_code == 200)
        return self


class Broker(Process):
    """A nats-server with our configuration: an ack means on disk."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"nats://127.0.0.1:{port}"
        self.port = port
        folder.mkdir(parents=True, exist_ok=True)
        command = nats_server.command(
            config=ROOT / "deploy/nats/nats.conf", store=folder / "nats", host="127.0.0.1", port=port
        )
        super().__init__(command, folder / "nats.log")
        until(self, lambda: nats_server.answers("127.0.0.1", port))


def until(process: Process, answers: Callable[[], bool]) -> None:
    """Return once a child answers; it is ended where it does not."""
    deadline = time.monotonic() + STARTS_S
    while True:
        process.alive()
        with suppress(httpx.TransportError):
            if answers():
                return
        if time.monotonic() > deadline:
            process.end()
            raise TimeoutError(f"it does not answer:\n{process.log.read_text()[-4000:]}")
        time.sleep(0.01)


def cpu_s(pid: int) -> float:
    """User and system time of a process and of those it waited for: other work changes it less than wall time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * TICK_S


def memory_mb(pid: int, name: str) -> float:
    """A line of /proc/<pid>/status: VmRSS is what a process has now, VmHWM the most it ever had; 0 once it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), 0.0)


def children(pid: int) -> list[int]:
    """Of a process, those its main thread made."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one measurement, gone after it; on the disk that TMPDIR is on."""
    with tempfile.TemporaryDirectory(prefix="tajo-bench-") as path:
        yield Path(path)


@contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """A broker with our streams and consumers."""
    with Broker(folder) as one:
        asyncio.run(bootstrap(one.url))
        yield one


def stored(url: str, stream: Stream) -> StreamState:
    """What a stream holds."""

    async def asked() -> StreamState:
        connection = await nats.connect(url)
        try:
            return (await connection.jetstream().stream_info(stream.name)).state
        finally:
            await connection.close()

    return asyncio.run(asked())


def holds(url: str, stream: Stream, messages: int) -> None:
    """Raises where a stream does not hold so many messages: then something else was measured than is said."""
    if (found := stored(url, stream).messages) != messages:
        raise RuntimeError(f"{stream.name} holds {found:,} messages, not {messages:,}")


def free_port() -> int:
    """A port nothing listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
