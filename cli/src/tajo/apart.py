"""A broker and a brevo-sink of their own, apart from the deployment's: on this machine, in a folder, for as long as they
are needed.
"""

import asyncio
import fcntl
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from brevo_sink.bulk import ROWS_MAX
from shared.bootstrap import bootstrap, consumer_config
from shared.command import Command, to_message
from shared.login import NOBODY
from shared.publish import NotPublishedError, publish
from shared.topology import BREVO, BREVO_SINK, BREVO_SINK_PAST
from shared.trace import follow
from tajo import nats_server
from tajo.broker import connected
from tajo.supervise import Child, keep, stop
from tajo.up import BROKER_S, CannotStartError
from tajo.up import command as service_command

HOST = "127.0.0.1"
LOCK_S = 30.0  # children of a run that was killed get SIGTERM, and need some seconds
AGAIN_S = 0.5  # between looks, and tries of what fails while a child is started again
AWAY_TRIES = 1500  # to reach the broker while it is started again, 0.2 s apart
HEALTH_S = 2.0

_CALLS = re.compile(r"^tajo_brevo_sink_calls_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)


class BusyError(Exception):
    """Another process works in the folder."""


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Nobody else works in the folder meanwhile, nor what another that was killed has started.  Gives the lock's file.

    Raises BusyError.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise BusyError(f"another process works in {folder}") from None
                time.sleep(AGAIN_S / 5)
        yield lock
    finally:
        os.close(lock)


@dataclass
class Apart:
    """Both, while they run."""

    connection: Client
    health: str  # where the sink's is
    keeping: list[asyncio.Task[None]]
    calls_before: int = 0  # of sinks that ended before this one
    calls_now: int = 0

    @property
    def calls(self) -> int:
        """Calls to Brevo, of the sink and those it was started again as; of one that was killed, as last seen."""
        return self.calls_before + self.calls_now

    async def say(self, messages: list[tuple[Command, bool]]) -> None:
        """Publish commands, each with whether it may wait, however long that takes."""
        out = [to_message(one, follow(None), past=past) for one, past in messages]
        while True:
            self._alive()
            with suppress(NotPublishedError):
                await publish(self.connection, out)
                return
            await asyncio.sleep(AGAIN_S)

    async def left(self) -> int | None:
        """How many commands have not ended; None while nobody can say.  Raises GivenUpError."""
        self._alive()
        try:
            jetstream = self.connection.jetstream(timeout=HEALTH_S)
            infos = [
                await jetstream.consumer_info(BREVO.name, one.durable)
                for one in (BREVO_SINK, BREVO_SINK_PAST)
            ]
        except (nats.errors.Error, nats.js.errors.Error, OSError):
            return None
        return sum(  # their filters do not meet: no command is in both
            (info.num_pending or 0) + (info.num_ack_pending or 0) for info in infos
        )

    async def why_not(self) -> str:
        """Why the sink does not work just now; an empty text when it does, or nobody can say."""
        with suppress(httpx.HTTPError):
            async with httpx.AsyncClient(base_url=self.health, timeout=HEALTH_S, trust_env=False) as client:
                ready = await client.get("/health/ready")
                self._count((await client.get("/metrics")).text)
                return "" if ready.status_code == httpx.codes.OK else ready.text.strip()
        return ""

    def _count(self, metrics: str) -> None:
        found = round(sum(float(number) for number in _CALLS.findall(metrics)))
        if found < self.calls_now:  # it was started again
            self.calls_before += self.calls_now
        self.calls_now = found

    def _alive(self) -> None:
        """Raises GivenUpError where a child says that no restart helps."""
        for task in self.keeping:
            if task.done():
                task.result()


@asynccontextmanager
async def running(
    folder: Path, *, lock: int, nats_config: Path, environment: Mapping[str, str]
) -> AsyncIterator[Apart]:
    """A broker with our streams, and a sink that works on it, until the end.  Raises CannotStartError and nats' errors.

    `environment` is the sink's, and its secrets are nowhere else: no argument, no file.
    """
    port, health = _free_ports()
    url = f"nats://{HOST}:{port}"
    command = nats_server.command(config=nats_config, store=folder / "nats", host=HOST, port=port)
    broker = Child("nats", command, log=folder / "nats.log", keep_open=(lock,))
    told = {
        **{name: value for name, value in environment.items() if not name.startswith("TAJO_NATS_")},
        "TAJO_NATS_URL": url,
        "TAJO_DATA_DIR": str(folder),
        "TAJO_BREVO_SINK_HOST": HOST,
        "TAJO_BREVO_SINK_PORT": str(health),
    }
    sink = Child(
        "brevo-sink",
        service_command("brevo-sink"),
        environment=told,
        log=folder / "brevo-sink.log",
        keep_open=(lock,),
    )
    keeping = [asyncio.create_task(keep(broker, _quiet))]
    try:
        await _answers(port, folder)
        await bootstrap(url)
        async with connected(url, NOBODY) as connection:
            connection.options["max_reconnect_attempts"] = AWAY_TRIES
            # Else an import would have no more rows than a sink beside live traffic takes in hand.
            wide = replace(BREVO_SINK_PAST, max_ack_pending=ROWS_MAX)
            await connection.jetstream().add_consumer(wide.stream, consumer_config(wide))
            keeping.append(asyncio.create_task(keep(sink, _quiet)))
            yield Apart(connection, f"http://{HOST}:{health}", keeping)
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        for child in (sink, broker):  # in the order of the flow
            await stop(child)


def _quiet(_: str) -> None:
    """What a child says when it ends is in its log."""


async def _answers(port: int, folder: Path) -> None:
    until = time.monotonic() + BROKER_S
    while not nats_server.answers(HOST, port):
        if time.monotonic() > until:
            raise CannotStartError(f"the folder's broker does not answer: {folder / 'nats.log'} says why")
        await asyncio.sleep(AGAIN_S / 10)


def _free_ports() -> tuple[int, int]:
    """Two that nothing listens on just now.  Both are held until both are known: the kernel gives a port that is free
    again to the next who asks, once in some thousand times.
    """
    with ExitStack() as held:
        first, second = (held.enter_context(socket.create_server((HOST, 0))) for _ in range(2))
        return int(first.getsockname()[1]), int(second.getsockname()[1])
