"""Fixtures only: a real broker for every test that asks, on a free port, in a directory of its own."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from shared.bootstrap import bootstrap
from tajo import nats_server as embedded

ROOT = Path(__file__).parent.parent


class NatsServer:
    """A nats-server process with our configuration; stop, kill and start it as a test needs."""

    def __init__(self, store: Path, port: int) -> None:
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it answers."""
        self._process = subprocess.Popen(
            embedded.command(
                config=ROOT / "deploy/nats/nats.conf", store=self._store, host="127.0.0.1", port=self.port
            ),
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while not embedded.answers("127.0.0.1", self.port):
            if time.monotonic() > deadline or self._process.poll() is not None:
                pytest.fail("nats-server did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._end(subprocess.Popen.terminate)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._end(subprocess.Popen.kill)

    def _end(self, how) -> None:
        if self._process is not None:
            how(self._process)
            self._process.wait(10)
            self._process = None


def free_port() -> int:
    """A port nothing listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Service:
    """One of our services, or all with `tajo up`, as a process that a test starts and ends as it needs."""

    def __init__(self, module: list[str], environment: dict[str, str], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._module = module
        self._environment = environment

    def start(self, *, ready: bool = False) -> None:
        """Start it; with `ready`, return when it says so."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self._module],
            env={**os.environ, **self._environment},
            stderr=subprocess.PIPE,
        )
        if ready:
            self.wait(200)

    def wait(self, status: int) -> str:
        """Return what /health/ready says once it answers with this status."""
        deadline = time.monotonic() + 30
        while True:
            try:
                answer = httpx.get(f"{self.url}/health/ready", timeout=3)
                if answer.status_code == status:
                    return answer.text
            except httpx.TransportError:
                assert self.process is not None
                assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> bytes:
        """Send a signal, wait, and return what it wrote to standard error."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.communicate(timeout=40)[1]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """`service("mapper", TAJO_NATS_URL=…)`: a service on a free port, with a data directory of its own."""
    made: list[Service] = []

    def make(name: str, **environment: str) -> Service:
        port = free_port()
        defaults = {
            "TAJO_DATA_DIR": str(tmp_path / "data"),
            "TAJO_CONFIG": str(ROOT / "config/tajo.yaml"),
            f"TAJO_{name.upper().replace('-', '_')}_PORT": str(port),
        }
        made.append(Service([f"{name.replace('-', '_')}.main"], {**defaults, **environment}, port))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.end(signal.SIGKILL)


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A broker with our streams and consumers."""
    server = NatsServer(tmp_path / "nats", free_port())
    server.start()
    asyncio.run(bootstrap(server.url))
    yield server
    server.stop()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rewrite-stories` writes what the golden stories shall end as, for a person to read."""
    parser.addoption("--rewrite-stories", action="store_true", help="write each story's then.json anew")
