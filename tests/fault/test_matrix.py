"""Each fault of Brevo's against each kind of command: the effect is there once, nothing is lost, and each doubt is counted."""

import asyncio
import json
import re
from dataclasses import replace

import httpx
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import Limits
from shared.command import Command, ContactDelete, ContactRelink, ContactUpsert, EventTrack
from shared.topology import BREVO_SINK

FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
CALLS = {  # which call carries out a command
    "contact.upsert": {"method": "POST", "path": "/v3/contacts"},
    "contact.relink": {"method": "PUT", "path": "/v3/contacts/"},
    "event.track": {"method": "POST", "path": "/v3/events/batch"},
    "contact.delete": {"method": "DELETE", "path": "/v3/contacts/"},
}
FAULTS = {  # and whether nobody knows then what the call did
    "latency": (Fault("latency", seconds=0.8), False),
    "reset before it is read": (Fault("reset"), True),
    "reset after send": (Fault("reset_after_apply"), True),
    "hang": (Fault("hang"), True),
    "hang after it took effect": (Fault("hang_after_apply"), True),
    "429 storm": (Fault("status", status=429, times=4), False),
    "401": (Fault("status", status=401), False),
    "500": (Fault("status", status=500), True),
    "500 after it took effect": (Fault("status_after_apply", status=500), True),
    "524 text": (Fault("status", status=524), True),
    "524 text after it took effect": (Fault("status_after_apply", status=524), True),
}


def upsert(who: str, version: int = 1) -> ContactUpsert:
    return ContactUpsert(
        id=f"{who}/{version}/m/0", ext_id=who, version=version, mapping="m", email=f"{who}@example.com",
        attributes={"FIRSTNAME": who},
    )  # fmt: skip


SAID: dict[str, Command] = {
    "contact.upsert": upsert("tajo-new"),
    "contact.relink": ContactRelink(id="tajo-was/tajo-now/2", ext_id="tajo-now", was="tajo-was", version=2),
    "event.track": EventTrack(id="WT1/task.created", ext_id="tajo-eve", name="X", time="2026-11-20T10:00:00.000Z"),
    "contact.delete": ContactDelete(id="tajo-del/delete/2", ext_id="tajo-del", version=2),
}  # fmt: skip


@pytest.fixture
async def brevo():
    sandbox = BrevoSandbox(limits=FAST)
    async with serving(sandbox) as url:
        sandbox.url = f"{url}/v3"
        yield sandbox


async def doubts(sink) -> dict[str, int]:
    """What the sink counted, by kind."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{sink.url}/metrics")).text
    found = re.findall(r'^tajo_brevo_sink_ambiguous_total\{kind="(.+)"\} (.+)$', text, re.MULTILINE)
    return {kind: int(float(count)) for kind, count in found if float(count)}


@pytest.mark.parametrize("name", FAULTS)
async def test_whatever_brevo_does_each_command_takes_effect_once_and_each_doubt_is_counted(
    nats_server, service, brevo, reliability, name
):
    fault, ambiguous = FAULTS[name]
    sink = service(
        "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key, TAJO_BREVO_URL=brevo.url,
        TAJO_BREVO_LOOK_S="0.3", TAJO_BREVO_TIMEOUT_S="2", TAJO_BREVO_RATE_FRACTION="1",
    )  # fmt: skip
    await asyncio.to_thread(sink.start, ready=True)
    await nats_server.say(*(upsert(f"tajo-{who}") for who in ("was", "eve", "del")))
    await nats_server.all_acked(BREVO_SINK)
    was = brevo.contact(ext_id="tajo-was").id
    brevo.faults += [replace(fault, **call) for call in CALLS.values()]

    await nats_server.say(*SAID.values())
    await nats_server.all_acked(BREVO_SINK)

    assert [one.times for one in brevo.faults] == [0] * 4  # each went wrong
    took_effect = {
        "contact.upsert": brevo.contact(ext_id="tajo-new").attributes["FIRSTNAME"] == "tajo-new",
        "contact.relink": brevo.contact(ext_id="tajo-now").id == was and not brevo.contact(ext_id="tajo-was"),
        "event.track": [one.properties["idempotency_key"] for one in brevo.events] == ["WT1/task.created"],
        "contact.delete": brevo.contact(ext_id="tajo-del") is None,
    }
    assert took_effect == dict.fromkeys(CALLS, True)
    assert len(brevo.contacts.by_id) == 3
    assert not brevo.orphans
    assert not await nats_server.messages("DEAD")
    assert await doubts(sink) == (dict.fromkeys(CALLS, 1) if ambiguous else {})
    read = [json.loads(message.data) for message in await nats_server.messages("RECEIPTS")]
    ended = [id_ for one in read if one["outcome"] == "delivered" for id_ in one["ids"]]
    assert sorted(ended[3:]) == sorted(one.id for one in SAID.values())
    reliability.row(
        "Each fault of Brevo against each kind of command",
        "One command of each kind; the call that carries it out goes wrong.  **once**: the effect is there, once.  "
        "Counted: the calls of which nobody knew what they did, as the sink's metric has them.",
        ("fault", *CALLS, "counted"),
        (name, *("once" for _ in CALLS), 4 if ambiguous else 0),
    )
