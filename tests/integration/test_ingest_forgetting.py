"""What ingest itself still holds of somebody when it says that it has forgotten them."""

import asyncio
import time

from ingest.forgetting import SERVICE, Forgetting
from ingest.sources import form
from ingest.spool import Spool
from shared import bus, erasure
from shared.erasure import Asked
from shared.tombstone import tombstone


async def test_once_it_has_said_so_the_last_form_read_is_not_in_memory(nats_server, tmp_path):
    broker = bus.connect(nats_server.url, service="ingest")
    await broker.connect()
    connection = bus.connected(broker)
    spool = Spool(tmp_path, bytes_max=1_000_000)
    form(b"EventType=task.created&email=maria%40example.com")
    held = form.cache_info().currsize
    key = await erasure.key(connection)
    await erasure.ask(connection, Asked(id="e1", whom=(), asked_ms=1))
    await erasure.bury(connection, tombstone(key, "e1", ["maria@example.com"], 1))

    working = asyncio.create_task(Forgetting(broker, spool).forever())
    deadline = time.monotonic() + 20
    while not any(one.service == SERVICE for one in (await erasure.load(connection)).ones["e1"].done):
        assert time.monotonic() < deadline
    working.cancel()
    await asyncio.wait([working])
    await broker.stop()
    await spool.close()

    assert (held, form.cache_info().currsize) == (1, 0)
