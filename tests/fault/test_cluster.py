"""Three nodes that keep each message three times, as deploy/cluster has them: the leader killed under load loses nothing."""

import asyncio
import itertools
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import nats
import nats.errors
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sandbox.load import paced, send
from sandbox.play import Target
from sandbox.traffic import schedule, traffic
from sandbox.twilio import ACCOUNT_SID
from shared.bootstrap import bootstrap
from shared.login import login_as, new_password
from shared.past import read
from tajo import nats_server as embedded

pytestmark = pytest.mark.nats_users

ROOT = Path(__file__).parent.parent.parent
TOKEN, PUBLIC = "token-of-twilio", "https://hooks.example.com"
EVENTS, PER_S = 800, 80
FORMED_S = 60.0  # until three nodes on two busy cores have a leader and all streams
BACK_S = 120.0  # from the last webhook until the spool is empty


class Cluster:
    """Three nodes on loopback with deploy/cluster/node.conf; what differs between them is their environment."""

    def __init__(self, folder: Path, ports: list[int], routes: list[int]) -> None:
        self.url = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        password = new_password()
        told = {
            f"TAJO_NATS_ROUTE_{number}": f"nats-route://node:{password}@127.0.0.1:{port}"
            for number, port in enumerate(routes, start=1)
        }
        for number, (port, route) in enumerate(zip(ports, routes, strict=True), start=1):
            name = f"nats-{number}"
            environment = {
                **os.environ, **told, "TAJO_NATS_CLUSTER_PASSWORD": password,
                "TAJO_NATS_NODE": name, "TAJO_NATS_CLUSTER_LISTEN": f"127.0.0.1:{route}",
            }  # fmt: skip
            command = embedded.command(
                config=ROOT / "deploy/cluster/node.conf", store=folder / name, host="127.0.0.1", port=port
            )
            with (folder / f"{name}.log").open("wb") as log:
                self._nodes[name] = subprocess.Popen(command, env=environment, stderr=log)

    def kill(self, name: str) -> None:
        self._nodes[name].kill()
        self._nodes[name].wait(10)

    def end(self) -> None:
        for one in self._nodes.values():
            one.terminate()
        for one in self._nodes.values():
            one.wait(30)


@pytest.fixture
def cluster(tmp_path: Path, nats_users, unused_tcp_port_factory) -> Iterator[Cluster]:
    ports = [unused_tcp_port_factory() for _ in range(6)]
    one = Cluster(tmp_path, ports[:3], ports[3:])
    yield one
    one.end()
    logs = "".join((tmp_path / f"nats-{number}.log").read_text() for number in (1, 2, 3))
    assert "Violation" not in logs


async def formed(url: str) -> None:
    """Make all streams, three times each, as soon as the nodes have found each other."""
    deadline = time.monotonic() + FORMED_S
    while True:
        try:
            return await bootstrap(url, login=login_as("tajo", url, os.environ), replicas=3)
        except (nats.errors.Error, OSError):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.5)


async def spool(url: str) -> Counter[str]:
    async with httpx.AsyncClient(timeout=5) as client:
        said = (await client.get(f"{url}/metrics")).text
    return Counter(
        {sample.name: sample.value for metric in text_string_to_metric_families(said) for sample in metric.samples
         if "spool" in sample.name or "drained" in sample.name}
    )  # fmt: skip


async def test_the_leader_killed_under_load_loses_nothing_and_publishing_resumes(
    cluster, service, reliability
):
    dice = random.Random(3)
    _, events = traffic(EVENTS, dice)
    made = schedule(events, 100, dice)
    await formed(cluster.url)
    ingest = service(
        "ingest", TAJO_NATS_URL=cluster.url, TAJO_PUBLIC_URL=PUBLIC, TWILIO_AUTH_TOKEN=TOKEN,
        TWILIO_ACCOUNT_SID=ACCOUNT_SID,
    )  # fmt: skip
    await asyncio.to_thread(ingest.start, ready=True)
    login = login_as("tajo", cluster.url, os.environ)
    connection = await nats.connect(login.servers(cluster.url), **login.options())
    info = await connection.jetstream().stream_info("TWILIO")
    assert info.config.num_replicas == len(info.cluster.replicas) + 1 == 3
    taken: list[float] = []
    killed_s = 0.0

    def on_taken(seconds: float) -> None:
        nonlocal killed_s
        taken.append(seconds)
        if len(taken) == len(made) // 4:
            cluster.kill(info.cluster.leader)
            killed_s = time.time()

    statuses = await send(made, Target(ingest.url, PUBLIC, TOKEN), turn=paced(PER_S), on_taken=on_taken)
    deadline = time.monotonic() + BACK_S
    while (said := await spool(ingest.url))["tajo_ingest_spool_messages"] or not said[
        "tajo_ingest_drained_total"
    ]:
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.2)
    state = (await connection.jetstream(timeout=5).stream_info("TWILIO")).state
    stored = [one async for batch in read(connection, "TWILIO", after=0, to=state.last_seq) for one in batch]
    await connection.close()
    log = await asyncio.to_thread(ingest.end)

    refused = {status: count for status, count in statuses.items() if status not in (200, 204)}
    ids = Counter(message.headers["Nats-Msg-Id"] for message in stored)
    after = sorted(at for one in stored if (at := one.metadata.timestamp.timestamp()) > killed_s)
    silent_s = max(late - early for early, late in itertools.pairwise([killed_s, *after]))
    reliability.add(
        "The leader of a cluster killed under load",
        f"""
Three nodes on one machine, three copies of each message; {len(made):,} signed webhooks at {PER_S} a second.  The node that leads
`TWILIO` was killed with SIGKILL after a quarter of them.  {sum(refused.values())} answers were no 2xx, the slowest took {max(taken):.1f} s.
**{len(events) - len(ids)} of {len(events):,} events lost, {ids.total() - len(ids)} doubled.**
""",
        ("events in the spool meanwhile", "for so long the log took none, s"),
        [(f"{said['tajo_ingest_spooled_total']:,.0f}", f"{silent_s:.1f}")],
    )
    assert not refused
    assert ids.keys() == {event.sid for event in events}
    assert set(ids.values()) == {1}
    assert said["tajo_ingest_spooled_total"] == said["tajo_ingest_drained_total"] > 0
    assert b"nats_denied" not in log
