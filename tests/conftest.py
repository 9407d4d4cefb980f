"""Fixtures only: a real broker for every test that asks, on a free port, in a directory of its own."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture
def free_port() -> int:
    """A port nothing listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A broker with our streams and consumers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    server = NatsServer(tmp_path / "nats", port)
    server.start()
    asyncio.run(bootstrap(server.url))
    yield server
    server.stop()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rewrite-stories` writes what the golden stories shall end as, for a person to read."""
    parser.addoption("--rewrite-stories", action="store_true", help="write each story's then.json anew")
