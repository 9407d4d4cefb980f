"""The poller reading the past: Twilio as the sandbox serves it, with a day's events and conversations, into an empty log."""

import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.demo import PRODUCTS
from sandbox.rest import TwilioSandbox
from sandbox.traffic import conversations, traffic
from shared.topology import TWILIO
from tests.bench import machine
from tests.bench.figures import Figure, Found, memory

SINCE = "2026-11-20"  # the sandbox's day


async def _sync(url: str) -> None:
    command = [
        sys.executable,
        "-m",
        "tajo",
        "connectors",
        "sync",
        "twilio-flex",
        "--type",
        "full",
        "--since",
        SINCE,
        "--json",
    ]
    asked = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, "TAJO_NATS_URL": url}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )  # fmt: skip
    out, errors = await asked.communicate()
    if asked.returncode or {one["state"] for one in json.loads(out)} != {"done"}:
        raise RuntimeError(f"it did not read all: {out.decode()} {errors.decode()}")


async def _read(events: int, folder: Path, url: str) -> tuple[float, float, float]:
    """Seconds until all is read, seconds of CPU, and the poller's most memory."""
    people, happened = traffic(events, random.Random(1))
    spoken = conversations(people, sum(len(one.starts) for one in people), 0)
    closing_s = max(event.time_ms for event in happened) / 1000 + 60
    twilio = TwilioSandbox(
        token=machine.TOKEN, events=happened, conversations=spoken, clock=lambda: closing_s
    )
    async with serving(BrevoSandbox(), twilio) as twilio_url:
        where = {f"TAJO_TWILIO_{name}_URL": f"{twilio_url}/twilio/{name.lower()}" for name in PRODUCTS}
        with machine.Service("poller", folder, url, **where) as poller:
            await asyncio.to_thread(poller.ready)
            began, cpu_s = time.monotonic(), poller.cpu_s
            await _sync(url)
            return time.monotonic() - began, poller.cpu_s - cpu_s, poller.peak_mb


def measure(*, quick: bool) -> Found:
    """Two figures."""
    with machine.folder() as folder, machine.broker(folder) as broker:
        took_s, cpu_s, peak_mb = asyncio.run(_read(200 if quick else 20_000, folder, broker.url))
        stored = machine.stored(broker.url, TWILIO).messages
    figures = [
        Figure(
            what="poller, reading the past within Twilio's limits",
            found=f"{stored / took_s:,.0f} raw events/s, {cpu_s / stored * 1e6:.0f} µs of CPU each",
        ),
        memory("poller", peak_mb),
    ]
    numbers = {
        "poller.per_s": stored / took_s,
        "poller.cpu_us": cpu_s / stored * 1e6,
        "poller.peak_mb": peak_mb,
    }
    return Found(figures=figures, numbers=numbers)
