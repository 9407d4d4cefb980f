"""`tajo up`: the broker, its streams, and one child a service, on this machine."""

import asyncio
import http.client
import importlib
import os
import re
import signal
import socket
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tajo import nats_server
from tajo.supervise import Child, keep, stop

SERVICES = {"ingest": 8080, "mapper": 8081, "brevo-sink": 8082, "poller": 8083}  # each with its port
# A start is a second of CPU and more.  The sink then waits for Brevo's rate limit, so it is first; who would only wait for
# a core begins when another listens.
FIRST = "brevo-sink"
AFTER = {"mapper": FIRST, "poller": "ingest"}
AFTER_S = 5.0  # or then, whatever became of it
PORT_MAX = 65_535
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PASSWORD = re.compile(r"password: \$(\w+)")  # as shared/permissions.py writes them
BROKER_S = 10.0  # nats-server answers within 0.1 s; recovery of a large store takes longer


class CannotStartError(Exception):
    """What stands in the way, and what to do."""


class NoStreamsError(Exception):
    """The broker cannot be reached, or does not let us make what it has to be like; and what to do."""


async def up(*, config: Path, say: Callable[[str], None]) -> None:
    """Run everything until SIGTERM or SIGINT.  Raises CannotStartError, NoStreamsError, GivenUpError."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    url = os.environ.get("TAJO_NATS_URL") or "nats://127.0.0.1:4222"
    for name in SERVICES:
        if listens(name):
            raise CannotStartError(
                f"port {port_of(name)} of {name} is in use: stop what listens there (another Tajo?),"
                f" or set {port_variable(name)}"
            )
    broker = _embedded(url, config)
    services = [Child(name, command(name)) for name in SERVICES]
    keeping: list[asyncio.Task[None]] = []
    try:
        # It imports while streams are made, and then waits for its lease, whose bucket is made last.
        keeping += [asyncio.create_task(keep(one, say)) for one in services if one.name == FIRST]
        if broker:
            keeping.append(asyncio.create_task(keep(broker, say)))
            await _answering(url)
        await _streams(url)
        keeping += [asyncio.create_task(_kept(one, say)) for one in services if one.name != FIRST]
        keeping.append(asyncio.create_task(_tell_when_ready(say)))
        await _until(stopping, keeping)
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        for service in services:  # in the order of the flow: what is in hand reaches the next
            await stop(service)
        if broker:
            await stop(broker)


async def _streams(url: str) -> None:
    """Make them.  Imported only here, because the first service is starting by now."""
    import nats.errors

    from shared.bootstrap import Replicas, bootstrap
    from shared.login import login_as
    from shared.settings import SettingsError, load

    try:
        login, replicas = login_as("tajo", url, os.environ), load(Replicas, os.environ).replicas
        await bootstrap(url, login=login, replicas=replicas)
    except SettingsError as error:
        raise CannotStartError(str(error)) from error
    except nats.errors.Error as error:
        host, port = _address(url)  # never what stands before the @
        raise NoStreamsError(
            f"the streams cannot be made on {host}:{port} ({str(error).removeprefix('nats: ')});"
            " is the broker running, and TAJO_NATS_URL right?"
        ) from error


def also_wrong(said: str) -> list[str]:
    """What the other services' settings lack, so that all is named at once; the service that `said` so told its own."""
    from shared.credentials import environment
    from shared.settings import SettingsError, load

    lines: dict[str, None] = {}
    for service in SERVICES:
        if service != said:
            settings = importlib.import_module(f"{module(service)}.settings").Settings
            try:
                load(settings, environment(os.environ))
            except SettingsError as error:
                lines.update(dict.fromkeys(str(error).splitlines()))
    return list(lines)


async def _kept(service: Child, say: Callable[[str], None]) -> None:
    other = AFTER.get(service.name)
    if other:
        for _ in range(round(AFTER_S / 0.05)):
            if listens(other):
                break
            await asyncio.sleep(0.05)
    await keep(service, say)


def command(service: str) -> list[str]:
    """What runs one service as a child.  Not `tajo run`: each would import all of the command line first."""
    return [sys.executable, "-m", module(service)]


def module(service: str) -> str:
    """Its package."""
    return service.replace("-", "_")


def port_of(service: str) -> int:
    """Where a service's health is.  Raises CannotStartError."""
    text = os.environ.get(port_variable(service)) or str(SERVICES[service])
    if not text.isdecimal() or not 0 < int(text) <= PORT_MAX:
        raise CannotStartError(f"{port_variable(service)} is no port number")
    return int(text)


def port_variable(service: str) -> str:
    """What sets it."""
    return f"TAJO_{service.upper().replace('-', '_')}_PORT"


def _address(url: str) -> tuple[str, int]:
    """Host and port of the broker.  Raises CannotStartError."""
    try:
        return nats_server.address(url)
    except ValueError as error:
        raise CannotStartError("TAJO_NATS_URL names no server: write nats://host:port") from error


def _embedded(url: str, config: Path) -> Child | None:
    """A broker of our own, where the URL is on this machine and nothing answers there."""
    host, port = _address(url)
    if host not in LOOPBACK or nats_server.answers(host, port):
        return None
    if not config.exists():
        raise CannotStartError(
            f"no {config}: run this in the repository, or set TAJO_NATS_URL to a running NATS"
        )
    unset = [
        name for name in _PASSWORD.findall(config.read_text(encoding="utf-8")) if not os.environ.get(name)
    ]
    if unset:
        raise CannotStartError(f"{', '.join(unset)}: not set; `tajo nats-config --passwords` makes new ones")
    store = Path(os.environ.get("TAJO_DATA_DIR") or ".tajo/data") / "nats"
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStartError(
            f"{store} cannot be made ({error.strerror}): set TAJO_DATA_DIR to a folder that may be"
        ) from error
    return Child("nats", nats_server.command(config=config, store=store, host=host, port=port))


async def _answering(url: str) -> None:
    host, port = _address(url)
    for _ in range(round(BROKER_S / 0.02)):
        if nats_server.answers(host, port):
            return
        await asyncio.sleep(0.02)
    raise CannotStartError(f"the broker does not answer on {host}:{port}; its log above says why")


async def _until(stopping: asyncio.Event, keeping: list[asyncio.Task[None]]) -> None:
    """Until we are told to stop, or a child gives up."""
    waiting = asyncio.create_task(stopping.wait())
    pending = {waiting, *keeping}
    while not waiting.done():
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # raises GivenUpError


async def _tell_when_ready(say: Callable[[str], None]) -> None:
    for service in SERVICES:
        while not await asyncio.to_thread(ready, service):  # noqa: ASYNC110 - another process has no Event of ours
            await asyncio.sleep(0.1)
    say(f"ready: webhooks on port {port_of('ingest')}; health on /health/ready of each service")


def listens(service: str) -> bool:
    """Whether anything does at its port, on this machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port_of(service)), timeout=0.5):
        return True
    return False


def ready(service: str) -> bool:
    """Whether a service on this machine says so."""
    url = f"http://127.0.0.1:{port_of(service)}/health/ready"
    strange = (OSError, http.client.HTTPException)  # something else listens at its port
    with suppress(*strange), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False
