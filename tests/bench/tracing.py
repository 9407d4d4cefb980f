"""What tracing costs: ingest and mapper as processes, tracing off, at 1% and at 100%, in turn.

`python tests/bench/tracing.py [rounds] [webhooks]` prints for each the CPU per webhook of the service (its user and system time,
which other work on the machine changes less than wall time), and how much of the throughput that leaves.
"""

import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import nats

from sandbox.load import send
from sandbox.play import Target
from sandbox.traffic import traffic
from sandbox.twilio import taskrouter_webhook
from shared.bootstrap import bootstrap
from tajo import nats_server

ROOT = Path(__file__).parents[2]
WAYS = {"off": None, "1%": "0.01", "100%": "1"}
FIRST_PORT = 24222
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def rss_mb(pid: int) -> float:
    """The most memory it ever had."""
    line = next(
        one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


class _Sink(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def _start(name: str, port: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-m", f"{name}.main"], env={**os.environ, **environment})
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=2).status_code == 200:
                return child
        except httpx.TransportError:
            time.sleep(0.05)


async def _mapped(url: str) -> None:
    connection = await nats.connect(url)
    while True:
        info = await connection.jetstream().consumer_info("TWILIO", "mapper")
        if not info.num_pending and not info.num_ack_pending:
            return await connection.close()
        await asyncio.sleep(0.05)


def round_(ratio: str | None, collector: str, events: list, port: int) -> dict[str, tuple[float, float]]:
    """CPU seconds and peak memory of each service, for all of the events."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"nats://127.0.0.1:{port}"
        broker = subprocess.Popen(
            nats_server.command(
                config=ROOT / "deploy/nats/nats.conf",
                store=Path(folder) / "nats",
                host="127.0.0.1",
                port=port,
            ),
            stderr=subprocess.DEVNULL,
        )
        while not nats_server.answers("127.0.0.1", port):
            time.sleep(0.02)
        asyncio.run(bootstrap(url))
        told = {
            "TAJO_NATS_URL": url, "TAJO_DATA_DIR": folder, "TAJO_CONFIG": str(ROOT / "config/tajo.yaml"),
            "TAJO_PUBLIC_URL": "https://hooks.example.com", "TWILIO_AUTH_TOKEN": "bench", "TAJO_INGEST_PORT": str(port + 1),
            "TAJO_MAPPER_PORT": str(port + 2),
        }  # fmt: skip
        if ratio:
            told |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                     "OTEL_TRACES_SAMPLER_ARG": ratio}  # fmt: skip
        ports = {"ingest": port + 1, "mapper": port + 2}
        services = {name: _start(name, port, told) for name, port in ports.items()}
        before = {name: cpu_s(child.pid) for name, child in services.items()}
        target = Target(f"http://127.0.0.1:{port + 1}", "https://hooks.example.com", "bench")
        asyncio.run(send([partial(taskrouter_webhook, event, "") for event in events], target))
        asyncio.run(_mapped(url))
        measured = {
            name: (cpu_s(child.pid) - before[name], rss_mb(child.pid)) for name, child in services.items()
        }
        for child in (*services.values(), broker):
            child.terminate()
            child.wait()
        return measured


def main() -> None:
    """Measure, and print."""
    rounds, webhooks = (int(word) for word in (*sys.argv[1:], *("3", "4000")[len(sys.argv) - 1 :]))
    events = traffic(webhooks, random.Random(1))[1]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    collector = f"http://127.0.0.1:{server.server_address[1]}"
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for number in range(rounds):
        for way in [*WAYS][:: 1 if number % 2 else -1]:  # in turn: the machine's other work changes
            for name, one in round_(WAYS[way], collector, events, FIRST_PORT).items():
                found[name, way].append(one)
    for name in ("ingest", "mapper"):
        off = statistics.median(one[0] for one in found[name, "off"])
        for way in WAYS:
            cpu = statistics.median(one[0] for one in found[name, way])
            memory = max(one[1] for one in found[name, way])
            print(  # noqa: T201 - its result
                f"{name:8} {way:5} {cpu / len(events) * 1e6:7.0f} us a webhook, {off / cpu:5.0%} of the throughput"
                f" of tracing off, {memory:4.0f} MB at most"
            )
    server.shutdown()


if __name__ == "__main__":
    main()
