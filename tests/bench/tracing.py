"""What tracing costs: ingest and mapper as processes, tracing off, at 1% and at 100%, in turn.

Compared is the CPU per webhook of the service, which bounds its throughput, and which other work on the machine changes less than
wall time.
"""

import asyncio
import random
import statistics
import threading
from collections import defaultdict
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nats

from sandbox.load import send
from sandbox.play import Target
from sandbox.traffic import traffic
from sandbox.twilio import TaskRouterEvent, taskrouter_webhook
from shared.topology import MAPPER
from tests.bench import machine
from tests.bench.figures import Figure, Found

WAYS = {"off": None, "1%": "0.01", "100%": "1"}
SERVICES = ("ingest", "mapper")


class _Sink(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


async def _mapped(url: str) -> None:
    connection = await nats.connect(url)
    while True:
        info = await connection.jetstream().consumer_info(MAPPER.stream, MAPPER.durable)
        if not info.num_pending and not info.num_ack_pending:
            return await connection.close()
        await asyncio.sleep(0.05)


def _cost(ratio: str | None, collector: str, events: list[TaskRouterEvent]) -> dict[str, tuple[float, float]]:
    """CPU seconds and peak memory of each service, for all of the events."""
    told = {}
    if ratio:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": ratio}  # fmt: skip
    with (
        machine.folder() as folder,
        machine.broker(folder) as broker,
        machine.Service("ingest", folder / "data", broker.url, **told) as ingest,
        machine.Service("mapper", folder / "data", broker.url, **told) as mapper,
    ):
        services = {"ingest": ingest.ready(), "mapper": mapper.ready()}
        before = {name: one.cpu_s for name, one in services.items()}
        target = Target(ingest.url, machine.PUBLIC_URL, machine.TOKEN)
        asyncio.run(send([partial(taskrouter_webhook, event, "") for event in events], target))
        asyncio.run(_mapped(broker.url))
        return {name: (one.cpu_s - before[name], one.peak_mb) for name, one in services.items()}


def measure(*, quick: bool) -> Found:
    """A figure of each service."""
    rounds, webhooks = (1, 60) if quick else (3, 4_000)
    ways = ["off", "100%"] if quick else [*WAYS]
    events = traffic(webhooks, random.Random(1))[1]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    collector = f"http://127.0.0.1:{server.server_address[1]}"
    costs: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    try:
        for number in range(rounds):
            for way in ways[:: 1 if number % 2 else -1]:  # in turn: the machine's other work changes
                for name, one in _cost(WAYS[way], collector, events).items():
                    costs[name, way].append(one)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    figures, numbers = [], {}
    for name in SERVICES:
        us = {way: statistics.median(cpu for cpu, _ in costs[name, way]) / len(events) * 1e6 for way in ways}
        most = max(memory for way in ways for _, memory in costs[name, way])
        figures.append(
            Figure(
                what=f"tracing, {name}",
                found=", ".join(f"{way} {one:.0f} µs" for way, one in us.items())
                + f" of CPU a webhook; {most:.0f} MB at most",
                ceiling="tracing off",
                ratio=us["off"] / us.get("1%", us["100%"]),
            )
        )
        numbers |= {f"tracing.{name}_{way}_us": one for way, one in us.items()}
    return Found(figures=figures, numbers=numbers)
