"""All of it as `tajo up` runs it: how soon it is ready, what it costs when nothing happens, how soon Brevo hears of a webhook,
and how many calls the demo's day takes.
"""

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from sandbox import day
from sandbox.demo import free_ports
from sandbox.expected import CONTACTS
from sandbox.flex import voice
from sandbox.play import Target, play
from sandbox.task import Task
from sandbox.twilio import Webhook, signed, taskrouter_webhook
from tajo.up import SERVICES, module
from tests.bench import machine
from tests.bench.brevo import Brevo, Call
from tests.bench.figures import Figure, Found
from tests.bench.load import quantile

LIMIT = 10  # calls a second in each of Brevo's buckets: the plan General
BATCH_MAX = 200  # events in one call
APART_S = 0.3  # between two webhooks of an idle system
ARRIVES_S = 60.0
STEADY_S = 2.0  # without another call: the day is over
RSS_IDLE_MB, CPU_IDLE = 90, 0.01


class Stack:
    """`tajo up` and its children."""

    def __init__(self, up: machine.Process, ports: dict[str, int]) -> None:
        self.up = up
        self.ports = ports
        # One for all: to make one costs 50 ms of CPU, which what starts would lack.
        self._client = httpx.Client(timeout=3)

    @property
    def ready(self) -> bool:
        """Whether all services say so."""
        return all(
            self._client.get(f"http://127.0.0.1:{self.ports[name]}/health/ready").status_code == 200
            for name in SERVICES
        )

    def pids(self) -> dict[str, int]:
        """Of the services, by name."""
        found, modules = {}, {module(name): name for name in SERVICES}
        for pid in machine.children(self.up.pid):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
            if words[-1] in modules:
                found[modules[words[-1]]] = pid
        return found


@contextmanager
def running(folder: Path, brevo: Brevo) -> Iterator[tuple[Stack, float]]:
    """Everything on free ports, once it is ready, and after how many seconds that was."""
    names = (*SERVICES, "nats")
    ports = free_ports(names)
    told = {
        **machine.settings(folder / "data", f"nats://127.0.0.1:{ports['nats']}"),
        **{f"TAJO_{name.upper().replace('-', '_')}_PORT": str(ports[name]) for name in SERVICES},
        **brevo.environment,
        "TAJO_BREVO_PLAN": "general",
        "TAJO_BREVO_RATE_FRACTION": "0.7",  # as where nothing is set
        "TAJO_API_KEY": "bench",
    }
    began = time.monotonic()
    with machine.Process([sys.executable, "-m", "tajo", "up"], folder / "up.log", told) as up:
        stack = Stack(up, ports)
        machine.until(up, lambda: stack.ready)
        yield stack, time.monotonic() - began


def idle(stack: Stack, seconds: float) -> dict[str, tuple[float, float]]:
    """Of each service, the memory it has and the part of a core it takes, when nothing happens."""
    pids = stack.pids()
    before, began = {name: machine.cpu_s(pid) for name, pid in pids.items()}, time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    return {
        name: (machine.memory_mb(pid, "VmRSS"), (machine.cpu_s(pid) - before[name]) / took)
        for name, pid in pids.items()
    }


def latencies(stack: Stack, brevo: Brevo, count: int) -> list[float]:
    """Seconds from sending a webhook until Brevo is called for its contact; in order of length."""
    began: dict[str, float] = {}
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports['ingest']}") as client:
        for number in range(count):
            email = f"latency{number}@example.com"
            task = Task(email, "voice", "Support", voice("+12025550199", email, customers={"email": email}))
            webhook = _of_now(taskrouter_webhook(task.created("10:00:00.000")[0], ""))
            path, headers = signed(webhook, machine.PUBLIC_URL, machine.TOKEN)
            began[email] = time.monotonic()
            client.post(path, content=webhook.body, headers=headers).raise_for_status()
            time.sleep(APART_S)
    deadline = time.monotonic() + ARRIVES_S
    while True:
        first: dict[str, float] = {}
        for call in brevo.calls:
            first.setdefault(call.key, call.at)
        if began.keys() <= first.keys():
            return sorted(first[email] - at for email, at in began.items())
        if time.monotonic() > deadline:
            raise TimeoutError(f"Brevo never heard of {began.keys() - first.keys()}")
        time.sleep(0.1)


def _of_now(webhook: Webhook) -> Webhook:
    """The sandbox's day is past, and what is past goes another way to the sink, behind what happens now."""
    ms = round(time.time() * 1000)
    body = re.sub(rb"TimestampMs=\d+", b"TimestampMs=%d" % ms, webhook.body)
    return replace(webhook, body=re.sub(rb"Timestamp=\d+", b"Timestamp=%d" % (ms // 1000), body))


def play_day(stack: Stack, brevo: Brevo) -> tuple[int, list[Call]]:
    """How many webhooks the demo's day has, and the calls that came of it."""
    target = Target(f"http://127.0.0.1:{stack.ports['ingest']}", machine.PUBLIC_URL, machine.TOKEN)
    before, webhooks = len(brevo.calls), day.webhooks()
    asyncio.run(play(webhooks, target, lambda: None))
    made, steady = brevo.calls, time.monotonic()
    while time.monotonic() - steady < STEADY_S:
        time.sleep(0.1)
        if len(now := brevo.calls) != len(made):
            made, steady = now, time.monotonic()
    return len(webhooks), made[before:]


def measure(*, quick: bool) -> Found:
    """Six figures."""
    with (
        machine.folder() as folder,
        Brevo(folder, LIMIT) as brevo,
        running(folder, brevo) as (stack, ready_s),
    ):
        quiet = idle(stack, 2 if quick else 30)
        took = latencies(stack, brevo, 5 if quick else 200)
        webhooks, calls = play_day(stack, brevo)
    p50_ms, p99_ms = (quantile(took, share) * 1000 for share in (0.5, 0.99))
    events = sum(one.size for one in calls if one.path == "/v3/events/batch")
    least = len(CONTACTS) + -(-events // BATCH_MAX)
    figures = [
        Figure(
            what="cold `tajo up`, without data, until all are ready",
            found=f"{ready_s:.1f} s",
            target="≤ 3 s",
            met=ready_s <= 3,
        ),
        Figure(
            what="idle",
            found=", ".join(f"{name} {mb:.0f} MB {cpu:.1%}" for name, (mb, cpu) in quiet.items()),
            target=f"≤ {RSS_IDLE_MB} MB, < {CPU_IDLE:.0%} of a core, each",
            met=all(mb <= RSS_IDLE_MB and cpu < CPU_IDLE for mb, cpu in quiet.values()),
        ),
        Figure(
            what="webhook until Brevo is called, idle system",
            found=f"p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms",
            target="p50 ≤ 60 ms, p99 ≤ 250 ms",
            met=p50_ms <= 60 and p99_ms <= 250,
        ),
        Figure(
            what="calls to Brevo for 1,000 webhooks of the demo's day",
            found=f"{len(calls) / webhooks * 1000:.0f}",
            ceiling=f"a call a contact and one for {BATCH_MAX} events: {least / webhooks * 1000:.0f}",
            ratio=least / len(calls),
        ),
    ]
    numbers = {
        "up.ready_s": ready_s,
        "whole.p50_ms": p50_ms,
        "whole.p99_ms": p99_ms,
        "brevo.calls_per_1000": len(calls) / webhooks * 1000,
        **{f"idle.{name}_mb": mb for name, (mb, _) in quiet.items()},
        **{f"idle.{name}_cpu": cpu for name, (_, cpu) in quiet.items()},
    }
    return Found(figures=figures, numbers=numbers)
