"""A broker with users: all works as without, and each service may do its own work and nothing else."""

import asyncio
import os
import random
import socket
import struct
import subprocess
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import nats
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.limits import Limits
from sandbox.load import send
from sandbox.play import Target
from sandbox.traffic import compare, schedule, traffic
from sandbox.twilio import ACCOUNT_SID
from shared import bus
from shared.login import NOBODY, Login, login_as
from shared.past import read
from shared.permissions import USERS
from shared.topology import BUCKETS, STREAMS
from tajo import broker

pytestmark = pytest.mark.nats_users

TOKEN, PUBLIC = "token-of-twilio", "https://hooks.example.com"
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
SAYS = {
    "TWILIO": {"tajo", "ingest", "poller"},
    "BREVO": {"tajo", "mapper"},
    "RECEIPTS": {"tajo", "brevo-sink"},
    "DEAD": {"tajo"},  # of another service
    "QUARANTINE": {"tajo", "ingest"},
}
"""Who may publish to what."""

READS = {
    "TWILIO": {"tajo", "mapper", "poller", "console"},
    "BREVO": {"tajo", "mapper", "brevo-sink", "console"},
    "RECEIPTS": {"tajo", "mapper", "brevo-sink", "console"},
    "DEAD": {"tajo", "mapper", "console"},
    "QUARANTINE": {"tajo", "mapper"},
}
"""Who may read what."""

ONE = {
    "TWILIO": "twilio.AC1.01.taskrouter.task.created",
    "BREVO": "brevo.00.contact.upsert",
    "RECEIPTS": "receipt.delivered.event.track",
    "DEAD": "dead.somebody",
    "QUARANTINE": "quarantine.ingest",
}
assert SAYS.keys() == READS.keys() == ONE.keys() == {stream.name for stream in STREAMS}


class Connected:
    """A connection that knows what it was denied."""

    def __init__(self, connection, denied: list[str]) -> None:
        self.connection = connection
        self._denied = denied

    async def may(self, subject: str, body: bytes = b"") -> bool:
        """Whether this may be published; the broker has looked at it by then."""
        await self.connection.publish(subject, body, reply=self.connection.new_inbox())
        return await self._was_let()

    async def may_hear(self, subject: str) -> bool:
        await (await self.connection.subscribe(subject)).unsubscribe(1)
        return await self._was_let()

    async def _was_let(self) -> bool:
        for _ in range(2):  # the first ping of nats-py may overtake what was published before it
            await self.connection.flush()
        denied, self._denied[:] = list(self._denied), []
        return not denied


@asynccontextmanager
async def connected(url: str, login: Login):
    denied = []

    async def on_error(error: Exception) -> None:
        assert "permissions violation" in str(error)
        denied.append(str(error))

    connection = await nats.connect(login.servers(url), **login.options(), error_cb=on_error)
    try:
        yield Connected(connection, denied)
    finally:
        await connection.close()


def all_denied(nats_server) -> None:
    """What was denied in this test was meant to be: the fixture holds only the rest against us."""
    assert nats_server.denied()
    os.truncate(nats_server.log, 0)


@pytest.fixture
async def users(nats_server):
    """The connection of each user, by name; each stream holds a message."""
    async with AsyncExitStack() as stack:
        tester = await stack.enter_async_context(connected(nats_server.url, NOBODY))
        for subject in ONE.values():
            await tester.connection.jetstream().publish(subject, b"one")
        yield {
            name: await stack.enter_async_context(
                connected(nats_server.url, login_as(name, nats_server.url, os.environ))
            )
            for name in USERS
        }


async def test_the_whole_way_works_and_nobody_is_denied_anything(everything):
    people, events = traffic(60, random.Random(19))
    brevo = BrevoSandbox(limits=FAST)
    async with serving(brevo) as url:
        tajo = everything(
            TAJO_PUBLIC_URL=PUBLIC, TWILIO_AUTH_TOKEN=TOKEN, TWILIO_ACCOUNT_SID=ACCOUNT_SID,
            BREVO_API_KEY=brevo.api_key, TAJO_BREVO_URL=f"{url}/v3",
        )  # fmt: skip
        await asyncio.to_thread(tajo.start, ready=True)

        statuses = await send(schedule(events, 400, random.Random(19)), Target(tajo.url, PUBLIC, TOKEN))
        deadline = time.monotonic() + 60
        while not (found := compare(brevo, people)).nothing:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.1)

        log = await asyncio.to_thread(tajo.end)

    assert set(statuses) <= {200, 204}
    assert b"Violation" not in log
    assert b"nats_denied" not in log


async def test_who_may_say_what(nats_server, users):
    said = {
        stream: {name for name, one in users.items() if await one.may(subject)}
        for stream, subject in ONE.items()
    }

    assert said == SAYS
    # ingest cannot publish a command, brevo-sink no raw event, and neither was stored.
    assert len(await nats_server.messages("BREVO")) == 1 + len(SAYS["BREVO"])
    all_denied(nats_server)


async def test_the_console_says_nothing_at_all(nats_server, users):
    subjects = [
        *ONE.values(), "dead.console", "anything", "_INBOX_tajo.x", "$O.plans.C.x", "$JS.ACK.TWILIO.mapper.1.1.1.1.1",
        *(f"$KV.{bucket.name}.{key}" for bucket in BUCKETS for key in ("x", "console", "console.x")),
        *(f"$JS.API.{what}" for what in (
            "STREAM.CREATE.X", "STREAM.UPDATE.TWILIO", "STREAM.DELETE.TWILIO", "STREAM.PURGE.TWILIO",
            "STREAM.MSG.DELETE.TWILIO", "CONSUMER.DURABLE.CREATE.TWILIO.console", "CONSUMER.CREATE.TWILIO.console",
            "CONSUMER.DELETE.TWILIO.mapper", "CONSUMER.MSG.NEXT.TWILIO.mapper",
        )),
    ]  # fmt: skip

    assert [subject for subject in subjects if await users["console"].may(subject)] == []
    all_denied(nats_server)


async def test_who_may_read_what_by_whichever_way(nats_server, users):
    may: dict[str, set[str]] = {stream: set() for stream in ONE}
    for stream, subject in ONE.items():
        for name, one in users.items():
            ways = (
                f"$JS.API.CONSUMER.CREATE.{stream}",
                f"$JS.API.CONSUMER.CREATE.{stream}.mine",
                f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.mine",
                f"$JS.API.DIRECT.GET.{stream}",
                f"$JS.API.DIRECT.GET.{stream}.{subject}",
                f"$JS.API.STREAM.MSG.GET.{stream}",
            )
            if any([await one.may(way) for way in ways]):
                may[stream].add(name)

    assert may == READS
    for name, one in users.items():
        heard = [
            one_of for one_of in (*ONE.values(), "twilio.>", ">", "_INBOX.>") if await one.may_hear(one_of)
        ]
        assert heard == [], name
    all_denied(nats_server)


async def test_who_may_read_a_stream_can_and_nobody_reads_anothers_answers(nats_server, users):
    for name in READS["TWILIO"]:
        batches = [batch async for batch in read(users[name].connection, "TWILIO", after=0, to=1)]
        assert [[message.data for message in batch] for batch in batches] == [[b"one"]], name
    hears = {
        (name, whose.name)
        for name, one in users.items()
        for whose in USERS.values()
        if await one.may_hear(f"{whose.inbox}.>")
    }

    assert hears == {(name, name) for name in USERS}
    all_denied(nats_server)


async def test_a_service_writes_its_own_keys_alone(nats_server, users):
    keys = {
        "leases": ["mapper", "brevo-sink", "poller"],
        "status": [f"{name}.x" for name in ("ingest", "mapper", "brevo-sink", "poller")],
        "erasures": ["key", "asked.x", "tombstone.x", "done.x.mapper", "done.x.brevo-sink", "done.x.ingest.y"],
        "cursors": ["tasks"], "backfills": ["tasks"], "replays": ["x"],
    }  # fmt: skip
    assert keys.keys() == {bucket.name for bucket in BUCKETS}

    writes = {
        name: {f"{bucket}.{key}" for bucket, some in keys.items() for key in some if await one.may(f"$KV.{bucket}.{key}")}
        for name, one in users.items()
    }  # fmt: skip

    assert writes.pop("tajo") == {f"{bucket}.{key}" for bucket, some in keys.items() for key in some}
    assert writes == {
        "ingest": {"status.ingest.x", "erasures.done.x.ingest.y"},
        "mapper": {"leases.mapper", "status.mapper.x", "erasures.tombstone.x", "erasures.done.x.mapper", "replays.x"},
        "brevo-sink": {"leases.brevo-sink", "status.brevo-sink.x", "erasures.done.x.brevo-sink"},
        "poller": {"leases.poller", "status.poller.x", "cursors.tasks", "backfills.tasks"},
        "console": set(),
    }  # fmt: skip
    all_denied(nats_server)


async def test_a_denied_publish_is_told_once_with_what_to_do(nats_server, capfd):
    broker = bus.connect(
        nats_server.url, service="ingest", login=login_as("ingest", nats_server.url, os.environ)
    )
    connection = await broker.connect()
    for _ in range(3):
        await connection.publish(ONE["BREVO"], b"")
        await connection.publish("anything", b"")
    for _ in range(2):
        await connection.flush()
    await broker.stop()

    told = [line for line in "".join(capfd.readouterr()).splitlines() if "nats_denied" in line]
    assert len(told) == 2
    assert all("deploy/nats/users.conf" in line for line in told)
    assert [subject in line for subject, line in zip((ONE["BREVO"], "anything"), told, strict=True)] == [
        True
    ] * 2
    all_denied(nats_server)


def tajo(url: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tajo", *command], capture_output=True, text=True, check=False,
        env={**os.environ, "TAJO_NATS_URL": url, **environment},
    )  # fmt: skip


def test_a_wrong_password_is_said_with_what_to_do_and_never_shown(nats_server, service):
    url = nats_server.url.replace("tester:tester@", "")
    ended = tajo(url, "connectors", "status", "twilio-flex", TAJO_NATS_PASSWORD="not-the-password")
    ingest = service(
        "ingest", TAJO_NATS_URL=url, TWILIO_AUTH_TOKEN="t", TAJO_INGEST_NATS_PASSWORD="not-the-password"
    )
    ingest.start(ready=True)  # it spools
    said = httpx.get(f"{ingest.url}/health/ready").text
    log = ingest.end().decode()

    assert ended.returncode == 69
    assert "the broker refuses us" in ended.stderr
    assert "set TAJO_NATS_PASSWORD to what the broker has for its user tajo" in ended.stderr
    assert "no connection to NATS" in said
    assert log.count("nats_refused") == 1
    assert "set TAJO_INGEST_NATS_PASSWORD to what the broker has for its user ingest" in log
    assert "not-the-password" not in ended.stdout + ended.stderr + said + log


async def test_a_refusal_that_only_one_of_the_tries_was_told_is_said():
    """A broker that has refused closes at once: what it said is lost where unread bytes of ours reset the connection."""
    tries = 0

    async def refusing(reader, writer):
        nonlocal tries
        tries += 1
        writer.write(
            b'INFO {"server_id":"S","version":"2.12.0","max_payload":1048576,"auth_required":true}\r\n'
        )
        await reader.readline()
        if tries == 1:
            writer.write(b"-ERR 'Authorization Violation'\r\n")
        else:
            reset = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        writer.close()

    server = await asyncio.start_server(refusing, "127.0.0.1", 0)
    async with server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(broker.DeniedError, match="the broker refuses us"):
            async with broker.connected(url, Login()):
                pass

    assert tries > 1


def test_a_broker_is_not_started_while_a_password_is_missing(tmp_path, nats_users, free_port):
    url = f"nats://127.0.0.1:{free_port()}"

    ports = {f"TAJO_{name}_PORT": str(free_port()) for name in ("INGEST", "MAPPER", "BREVO_SINK", "POLLER")}
    ended = tajo(
        url, "up", "--nats-config", "deploy/nats/users.conf", TAJO_POLLER_NATS_PASSWORD="", TAJO_DATA_DIR=str(tmp_path), **ports
    )  # fmt: skip

    assert ended.returncode == 78
    assert "TAJO_POLLER_NATS_PASSWORD: not set; `tajo nats-config --passwords` makes new ones" in ended.stderr
