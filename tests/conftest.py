"""Fixtures only: a real broker for every test that asks, on a free port, in a directory of its own."""

import asyncio
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import nats
import pytest
from hypothesis import settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from ruamel.yaml import YAML

from shared import bus, command, trace
from shared.bootstrap import bootstrap
from shared.command import Command
from shared.login import new_password
from shared.message import Message
from shared.permissions import USERS
from shared.topology import Consumer
from tajo import nats_server as embedded

ROOT = Path(__file__).parent.parent
NATS_CONF = ROOT / "deploy/nats/nats.conf"
NO_TWILIO = {
    f"TAJO_TWILIO_{product}_URL": "http://127.0.0.1:9"  # where nothing listens
    for product in ("FLEX", "TASKROUTER", "CONVERSATIONS", "EVENTS")
}

PORTS, PORTS_EACH = (
    range(10_000, 32_000),
    500,
)  # below those a kernel gives to whoever asks (Linux: from 32768 on)

# A machine with other things to do is no failed test.
settings.register_profile("tajo", deadline=None)
settings.load_profile("tajo")


TESTER = "tester:tester@"
"""Before the address: a user who may do everything, where the broker has users."""


def users_too(path: Path) -> Path:
    """deploy/nats/users.conf with the tester, written there."""
    text = (ROOT / "deploy/nats/users.conf").read_text()
    text = text.replace("include ./nats.conf", (ROOT / "deploy/nats/nats.conf").read_text())
    path.write_text(text.replace("users: [", "users: [\n    { user: tester, password: tester }", 1))
    return path


class NatsServer:
    """A nats-server process with our configuration; stop, kill and start it as a test needs."""

    def __init__(self, store: Path, port: int, *, users: bool = False) -> None:
        self.port = port
        self.url = f"nats://{TESTER if users else ''}127.0.0.1:{port}"
        self.log = store.with_suffix(".log")
        self._store = store
        self._config = users_too(store.with_suffix(".conf")) if users else NATS_CONF
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it answers."""
        self._start()
        deadline = time.monotonic() + 10
        while not embedded.answers("127.0.0.1", self.port):
            if time.monotonic() > deadline or not self._runs():
                pytest.fail("nats-server did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._end(signal.SIGKILL)

    def denied(self) -> list[str]:
        """What somebody was not allowed, as the broker's log has it."""
        return [line for line in self.log.read_text().splitlines() if "Violation" in line]

    async def say(self, *said: Command | Message) -> None:
        """Publish commands, or whole messages, as a service does."""
        broker = bus.connect(self.url, service="test")
        await broker.connect()
        messages = [
            one if isinstance(one, Message) else command.to_message(one, trace.start()) for one in said
        ]
        await bus.Publisher(broker).publish(messages)
        await broker.stop()

    async def all_acked(self, consumer: Consumer, seconds: float = 60) -> None:
        """Return once everything its stream holds is acked."""
        connection = await nats.connect(self.url)
        deadline = time.monotonic() + seconds
        try:
            while True:
                info = await connection.jetstream().consumer_info(consumer.stream, consumer.durable)
                if info.num_pending == 0 and info.num_ack_pending == 0:
                    return
                assert time.monotonic() < deadline, info
                await asyncio.sleep(0.05)
        finally:
            await connection.close()

    async def messages(self, stream: str) -> list:
        """All a stream holds."""
        connection = await nats.connect(self.url)
        try:
            jetstream = connection.jetstream()
            state = (await jetstream.stream_info(stream)).state
            wanted = range(state.first_seq, state.last_seq + 1) if state.messages else ()
            return [await jetstream.get_msg(stream, number) for number in wanted]
        finally:
            await connection.close()

    def _start(self) -> None:
        command = embedded.command(config=self._config, store=self._store, host="127.0.0.1", port=self.port)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log)

    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None


class NatsContainer(NatsServer):
    """The same from the image that docker-compose.yml runs; each start is a new container over the same store."""

    def __init__(self, store: Path, port: int, *, users: bool = False) -> None:
        super().__init__(store, port, users=users)
        store.mkdir()  # by us, or the engine makes it as root
        self._container = None

    def _start(self) -> None:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - two seconds, for who asks alone

        image = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]["nats"]["image"]
        self._container = (
            DockerContainer(image)
            .with_command("--config /etc/nats/tajo.conf --store_dir /data")
            .with_volume_mapping(str(self._config), "/etc/nats/tajo.conf", "ro")
            .with_volume_mapping(str(self._store), "/data", "rw")
            .with_bind_ports(4222, self.port)
            .with_kwargs(user=f"{os.getuid()}:{os.getgid()}")
            .start()
        )

    def _runs(self) -> bool:
        engine = self._container.get_wrapped_container()
        engine.reload()
        return engine.status == "running"

    def _end(self, number: int) -> None:
        if self._container is not None:
            engine = self._container.get_wrapped_container()
            engine.kill(signal=number)
            engine.wait(timeout=10)
            with self.log.open("ab") as log:
                log.write(engine.logs())
            self._container.stop()
            self._container = None


class Collector:
    """Where spans are sent to over OTLP: http/protobuf, on loopback."""

    def __init__(self) -> None:
        self.resources: list = []  # opentelemetry.proto.trace.v1.ResourceSpans
        self.bytes = b""  # all that was received
        collector = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces"
                collector.bytes += body
                collector.resources += ExportTraceServiceRequest.FromString(body).resource_spans
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def spans(self) -> list:
        """All that were received; what a service recorded is here once it has ended."""
        return [one for resource in self.resources for scope in resource.scope_spans for one in scope.spans]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


class Service:
    """One of our services, or all with `tajo up`, as a process that a test starts and ends as it needs."""

    def __init__(self, module: list[str], environment: dict[str, str], port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.others: list[str] = []  # where else health is asked
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = environment
        self._module = module
        self._log = log  # a file: a pipe nobody reads is full after 64 KiB, and who writes to it stands still

    def start(self, *, ready: bool = False) -> None:
        """Start it; with `ready`, return when it says so."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self._module], env={**os.environ, **self.environment}, stderr=log
            )
        if ready:
            self.wait(200)

    def wait(self, status: int) -> str:
        """Return what /health/ready says once it answers with this status."""
        deadline = time.monotonic() + 60  # all of them at once, on two cores, with nothing compiled
        asked = [self.url, *self.others]
        while True:
            try:
                answers = [httpx.get(f"{url}/health/ready", timeout=3) for url in asked]
                if all(answer.status_code == status for answer in answers):
                    return answers[0].text
            except httpx.TransportError:
                assert self.process is not None
                assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> bytes:
        """Send a signal, wait, and return what it wrote to standard error in all its runs."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> bytes:
        """Wait until it has ended, and return what it wrote to standard error in all its runs."""
        assert self.process is not None
        self.process.wait(40)
        return self._log.read_bytes()


@pytest.fixture(scope="session")
def free_port() -> Iterator[Callable[[], int]]:
    """`free_port()`: one that nothing listens on, and no other test is given.

    The kernel gives a port that is free again to the next who asks, be it before the process that it was meant for has
    started.  So each pytest process has ports of its own, in turn: whoever listens on the first of them.
    """
    with ExitStack() as held:
        for first in PORTS[::PORTS_EACH]:
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", first)))
                break
        else:
            pytest.fail("no ports are left: every five hundredth is listened on")
        mine = itertools.cycle(range(first + 1, first + PORTS_EACH))

        def free(port: int) -> bool:
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                return True
            return False

        yield lambda: next(filter(free, itertools.islice(mine, PORTS_EACH)))


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Receives spans: OTEL_EXPORTER_OTLP_ENDPOINT=collector.url."""
    one = Collector()
    yield one
    one.close()


@pytest.fixture
def everything(
    tmp_path: Path, nats_users: bool, free_port: Callable[[], int]
) -> Iterator[Callable[..., Service]]:
    """`everything(TAJO_BREVO_URL=…)`: `tajo up` on free ports, its URL that of ingest."""
    made: list[Service] = []

    def make(**environment: str) -> Service:
        ports = {name: free_port() for name in ("INGEST", "MAPPER", "BREVO_SINK", "POLLER")}
        config = [] if not nats_users else ["--nats-config", str(users_too(tmp_path / "up.conf"))]
        defaults = {
            **{f"TAJO_{name}_PORT": str(port) for name, port in ports.items()},
            "TAJO_NATS_URL": f"nats://{TESTER if nats_users else ''}127.0.0.1:{free_port()}",
            "TAJO_DATA_DIR": str(tmp_path / "data"),
            "TAJO_CONFIG": str(ROOT / "config/tajo.yaml"),
            **NO_TWILIO,
        }
        made.append(
            Service(
                ["tajo", "up", *config], {**defaults, **environment}, ports["INGEST"], tmp_path / "up.log"
            )
        )
        made[-1].others = [f"http://127.0.0.1:{port}" for name, port in ports.items() if name != "INGEST"]
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.end()
        if nats_users and one.process is not None:
            assert "Violation" not in one.ended().decode()


@pytest.fixture
def service(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., Service]]:
    """`service("mapper", TAJO_NATS_URL=…)`: a service on a free port, with a data directory of its own."""
    made: list[Service] = []

    def make(name: str, **environment: str) -> Service:
        port = free_port()
        defaults = {
            "TAJO_DATA_DIR": str(tmp_path / "data"),
            "TAJO_CONFIG": str(ROOT / "config/tajo.yaml"),
            f"TAJO_{name.upper().replace('-', '_')}_PORT": str(port),
            **NO_TWILIO,
        }
        log = tmp_path / f"{name}-{port}.log"
        made.append(Service([name.replace("-", "_")], {**defaults, **environment}, port, log))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.end(signal.SIGKILL)


@pytest.fixture
def nats_users(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether brokers have users: with `--nats-users`, or where a test says @pytest.mark.nats_users; each process is then its own."""
    wanted = request.config.getoption("--nats-users") or "nats_users" in request.keywords
    for user in USERS.values() if wanted else ():
        monkeypatch.setenv(user.password, new_password())
    return bool(wanted)


@pytest.fixture
def nats_server(tmp_path: Path, nats_users: bool, free_port: Callable[[], int]) -> Iterator[NatsServer]:
    """A broker with our streams and consumers."""
    if os.environ.get("TAJO_TEST_NATS", "") == "container":
        server: NatsServer = NatsContainer(tmp_path / "nats", free_port(), users=nats_users)
    else:
        server = NatsServer(tmp_path / "nats", free_port(), users=nats_users)
    server.start()
    asyncio.run(bootstrap(server.url))
    yield server
    server.stop()
    assert not server.denied()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rewrite-stories` for golden stories, `--rewrite-cli` for docs/cli.md; the others make the fault tests as long as `make fault` has them."""
    parser.addoption("--rewrite-stories", action="store_true", help="write each story's then.json anew")
    parser.addoption(
        "--nats-users", action="store_true", help="give every broker users, and each service its own"
    )
    parser.addoption("--rewrite-cli", action="store_true", help="write what docs/cli.md says is printed anew")
    parser.addoption("--storm-webhooks", type=int, default=3000, help="sent while everything is killed")
    parser.addoption("--storm-kills", type=int, default=8, help="SIGKILLs over three services and the broker")
    parser.addoption("--storm-away", type=float, default=2.0, help="seconds the broker stays away")
    parser.addoption("--backfill-events", type=int, default=4000, help="TaskRouter events a backfill reads")
    parser.addoption("--backfill-conversations", type=int, default=400, help="and conversations")
    parser.addoption("--sink-kills", type=int, default=20, help="SIGKILLs of the sink while it tells Brevo")
    parser.addoption(
        "--replay-kills", type=int, default=4, help="SIGKILLs while replays are planned and applied"
    )
    parser.addoption("--backlog", type=int, default=2000, help="commands that wait when the sink starts")
    parser.addoption("--into-seed", type=int, default=1, help="of their history; 0 takes another each time")
    parser.addoption("--into-customers", type=int, default=60, help="rebuilt in another account")
    parser.addoption("--report", metavar="FILE", help="write what the fault tests found")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_report_header() -> list[str]:
    """Whether what we ask of Twilio is held to its OpenAPI, and alerts to Prometheus' own tool."""
    folder = os.environ.get("TAJO_SPECS_DIR")
    specs = folder or "TAJO_SPECS_DIR is unset, so requests to Twilio are not checked against it"
    promtool = shutil.which("promtool") or "not on this machine, so alerts are held to our own checks alone"
    return [f"Twilio's OpenAPI: {specs}", f"promtool: {promtool}"]
