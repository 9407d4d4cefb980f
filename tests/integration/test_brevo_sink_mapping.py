"""The sink meets a mapping it does not know: it reads the connector file again, and has Brevo made ready, unasked."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.limits import Limits
from shared.command import ContactUpsert
from shared.connector_file import parse
from shared.topology import BREVO_SINK

FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
BEFORE = (Path(__file__).parent.parent.parent / "config/tajo.yaml").read_text()
AFTER = BEFORE.replace("SUPPORT_TICKET_COUNT", "TICKETS")


@pytest.fixture
async def brevo():
    sandbox = BrevoSandbox(limits=FAST)
    async with serving(sandbox) as url:
        sandbox.url = f"{url}/v3"
        yield sandbox


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tajo.yaml"
    path.write_text(BEFORE)
    return path


@pytest.fixture
def sink(nats_server, service, brevo, file):
    return service(
        "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key, TAJO_BREVO_URL=brevo.url,
        TAJO_BREVO_RATE_FRACTION="1", TAJO_CONFIG=str(file),
    )  # fmt: skip


def upsert(who: str, config: str, **attributes) -> ContactUpsert:
    mapping = parse(config).hash
    return ContactUpsert(
        id=f"{who}/1/{mapping}/x", ext_id=who, version=1, mapping=mapping, email=f"{who}@example.com",
        attributes=attributes,
    )  # fmt: skip


async def test_an_attribute_of_an_edited_mapping_is_made_before_the_first_contact_is_told(
    nats_server, sink, brevo, file
):
    await asyncio.to_thread(sink.start, ready=True)
    await nats_server.say(upsert("tajo-a", BEFORE, SUPPORT_TICKET_COUNT=1))
    await nats_server.all_acked(BREVO_SINK)
    file.write_text(AFTER)

    await nats_server.say(upsert("tajo-b", AFTER, TICKETS=2))
    await nats_server.all_acked(BREVO_SINK)

    async with httpx.AsyncClient(headers={"api-key": brevo.api_key}) as client:
        contact = await client.get(f"{brevo.url}/contacts/tajo-b", params={"identifierType": "ext_id"})
    assert contact.json()["attributes"]["TICKETS"] == 2


async def test_a_file_that_cannot_be_read_is_said_and_stops_nothing(nats_server, sink, brevo, file):
    await asyncio.to_thread(sink.start, ready=True)
    file.write_text("field_mapping: [")

    await nats_server.say(upsert("tajo-b", AFTER, FIRSTNAME="Bea"))
    await nats_server.all_acked(BREVO_SINK)

    deadline = time.monotonic() + 30
    while "the connector file cannot be read" not in await asyncio.to_thread(sink.wait, 200):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
