"""The load generator, a process of its own: `python -m tests.bench.load` reads one line of JSON, an `Order`, and prints a `Report`.

Every request is made and signed before the first is sent.  Over bare sockets, because an HTTP client for everything costs a
multiple of what the server does.
"""

import asyncio
import gc
import itertools
import random
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
import uvloop

from sandbox.traffic import traffic
from sandbox.twilio import signed, taskrouter_webhook
from tests.bench import machine


class Order(msgspec.Struct):
    """What is sent."""

    urls: list[str]  # connections are spread over them
    requests: int
    connections: int = 64
    per_s: float = (
        0.0  # at this pace, whether or not answers come; 0: each connection as soon as it has its answer
    )
    seed: int = 1  # another seed, other sids


class Report(msgspec.Struct):
    """What came of it.  A latency is from when a request was due, so one that waits for a connection has waited."""

    statuses: dict[int, int]
    seconds: float
    p50_ms: float
    p99_ms: float
    busy: float  # part of its time the generator itself worked: near 1, it is what was measured

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return sum(self.statuses.values()) / self.seconds


def requests(order: Order) -> list[bytes]:
    """TaskRouter callbacks of contacts, each with other sids."""
    _, events = traffic(order.requests, random.Random(order.seed), f"contact of {order.seed}")
    host = urlsplit(machine.PUBLIC_URL).netloc
    made = []
    for event in events[: order.requests]:
        webhook = taskrouter_webhook(event, "")
        path, headers = signed(webhook, machine.PUBLIC_URL, machine.TOKEN)
        lines = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-length: {len(webhook.body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        made.append("\r\n".join([*lines, "", ""]).encode() + webhook.body)
    return made


class _Connection(asyncio.Protocol):
    """One request at a time.  Our answers have no body, so each ends with its head."""

    def __init__(self, answered: Callable[["_Connection", int], None]) -> None:
        self._answered = answered
        self._head = b""

    def connection_made(self, transport) -> None:
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            status, self._head = int(self._head[9:12]), b""
            self._answered(self, status)

    def connection_lost(self, exc: Exception | None) -> None:
        self._answered(self, 0)


class _Load:
    """Sends all, and notes what comes back."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._requests = requests(order)
        self._next = iter(self._requests)
        self._due: deque[float] = deque()  # paced, and no connection was free
        self._idle: deque[_Connection] = deque()
        self._left = len(self._requests)
        self._seconds: list[float] = []
        self._statuses: Counter[int] = Counter()
        self._done = asyncio.Event()

    async def run(self) -> Report:
        loop = asyncio.get_running_loop()
        urls = itertools.cycle(self._order.urls)
        connections = []
        for _ in range(self._order.connections):
            where = urlsplit(next(urls))
            _, one = await loop.create_connection(
                lambda: _Connection(self._answered), where.hostname, where.port
            )
            connections.append(one)
        began, cpu = time.monotonic(), _cpu_s()
        if self._order.per_s:
            self._idle.extend(connections)
            await self._pace(began)
        else:
            for one in connections:
                self._send(one, time.monotonic())
        await self._done.wait()
        took = time.monotonic() - began
        self._seconds.sort()
        return Report(
            statuses=dict(self._statuses),
            seconds=took,
            p50_ms=quantile(self._seconds, 0.5) * 1000,
            p99_ms=quantile(self._seconds, 0.99) * 1000,
            busy=(_cpu_s() - cpu) / took,
        )

    async def _pace(self, began: float) -> None:
        for number in range(len(self._requests)):
            due = began + number / self._order.per_s
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if self._idle:
                self._send(self._idle.popleft(), due)
            else:
                self._due.append(due)

    def _send(self, connection: _Connection, due: float) -> None:
        request = next(self._next, None)
        if request is not None:
            connection.send(request, due)

    def _answered(self, connection: _Connection, status: int) -> None:
        now = time.monotonic()
        self._seconds.append(now - connection.due)
        self._statuses[status] += 1
        self._left -= 1
        if not self._left or not status:
            self._done.set()
        elif not self._order.per_s:
            self._send(connection, now)
        elif self._due:
            self._send(connection, self._due.popleft())
        else:
            self._idle.append(connection)


def quantile(ordered: list[float], share: float) -> float:
    """Of ordered values the one below which that share is."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _run(order: Order) -> Report:
    return await _Load(order).run()


def main() -> None:
    """One order."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    gc.disable()  # a look through all these requests is a pause of 50 ms, and would be told as the server's
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(_run(order))))


if __name__ == "__main__":
    main()
