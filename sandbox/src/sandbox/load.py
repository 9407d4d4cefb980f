"""Webhooks at the rate a server takes them: a few connections that stay open, each with one request at a time.

An HTTP client for everything costs a multiple of what our server does for a webhook; this one knows no redirects,
no chunks and no TLS.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

from sandbox.play import Target
from sandbox.twilio import Webhook, signed

TRY_S = 15.0  # Twilio waits so long for an answer
DELAY_S = 0.2  # before the same webhook is sent again
HEAD_BYTES_MAX = 64 * 1024  # of an answer; ours have some hundred


async def send(
    plan: Iterable[Callable[[], Webhook]],
    target: Target,
    *,
    connections: int = 32,
    turn: Callable[[], Awaitable[None]] | None = None,
    on_taken: Callable[[float], None] = lambda _: None,
) -> Counter[int]:
    """Send all in order, each again until it is answered with 2xx; return the statuses, 0 for no answer.

    `turn` is awaited before each; `on_taken` hears how many seconds the answer took.
    """
    statuses: Counter[int] = Counter()
    waiting = iter(plan)

    async def work() -> None:
        connection = _Connection(target.url)
        try:
            for make in waiting:  # shared: each takes the next
                if turn is not None:
                    await turn()
                webhook = make()
                path, headers = signed(webhook, target.public_url, target.token)
                while True:
                    if 200 <= await _once(connection, path, headers, webhook.body) < 300:
                        break
                    await asyncio.sleep(DELAY_S)
        finally:
            connection.close()

    async def _once(connection: "_Connection", path: str, headers: dict[str, str], body: bytes) -> int:
        began = time.monotonic()
        try:
            async with asyncio.timeout(TRY_S):
                status = await connection.post(path, headers, body)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            connection.close()
            status = 0
        statuses[status] += 1
        if 200 <= status < 300:
            on_taken(time.monotonic() - began)
        return status

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(work())
    return statuses


class _Connection:
    """HTTP/1.1, kept open, opened again when it broke."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """The answer's status.  Raises what reading and writing raises."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=HEAD_BYTES_MAX)
        reader, writer = self._streams
        lines = [f"POST {path} HTTP/1.1", f"host: {self._host}:{self._port}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *answered = head.split("\r\n")
        said = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in answered)}
        await reader.readexactly(int(said.get("content-length", 0)))
        if said.get("connection") == "close":
            self.close()
        return int(status.split(" ")[1])

    def close(self) -> None:
        """Close it; the next request opens it again."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def paced(per_s: float) -> Callable[[], Awaitable[None]]:
    """A turn for each, evenly, from the first one on."""
    next_at = 0.0

    async def turn() -> None:
        nonlocal next_at
        at = next_at = next_at + 1 / per_s if next_at else time.monotonic()
        await asyncio.sleep(at - time.monotonic())

    return turn
