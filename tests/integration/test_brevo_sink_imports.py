"""Many contacts of the past go by Brevo's import: one at a time, followed to its end, and what it refused is told singly."""

import asyncio
import json
import signal
import time

import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.contact import Attribute
from sandbox.faults import Fault
from sandbox.limits import Limits
from shared import command, trace
from shared.command import ContactUpsert
from shared.topology import BREVO_SINK, BREVO_SINK_PAST

FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
CONTACTS, FALSE = 120, 10  # so many of them have an attribute that is false


def upsert(number: int, version: int, *, vip: bool, **more) -> ContactUpsert:
    who = f"tajo-{number}"
    usual = {
        "attributes": {"AVG_WAIT_TIME": version, "VIP": vip, "SMS": f"+1202555{number:04d}"},
        "list_ids": (32,),
    }
    return ContactUpsert(
        id=f"{who}/{version}/m/0", ext_id=who, version=version, mapping="m", email=f"c{number}@example.com",
        **{**usual, **more},
    )  # fmt: skip


@pytest.fixture
async def brevo():
    sandbox = BrevoSandbox(limits=FAST)
    sandbox.account.attributes["VIP"] = Attribute("VIP", "normal", "boolean")
    async with serving(sandbox) as url:
        sandbox.url = f"{url}/v3"
        yield sandbox


@pytest.fixture
async def sink(nats_server, service, brevo):
    """With every contact told once."""
    one = service(
        "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key, TAJO_BREVO_URL=brevo.url,
        TAJO_BREVO_LOOK_S="0.3", TAJO_BREVO_RATE_FRACTION="1", TAJO_BREVO_IMPORT_FROM="50",
    )  # fmt: skip
    await asyncio.to_thread(one.start, ready=True)
    await nats_server.say(*(upsert(number, 1, vip=True) for number in range(CONTACTS)))
    await nats_server.all_acked(BREVO_SINK)
    return one


async def say_again(nats_server) -> None:
    """The second version of each, as a rebuild says it."""
    said = (upsert(number, 2, vip=number >= FALSE) for number in range(CONTACTS))
    await nats_server.say(*(command.to_message(one, trace.start(), past=True) for one in said))


def calls(brevo, route: str) -> int:
    return sum(request.route == route and request.method == "POST" for request in brevo.requests)


def right(brevo) -> bool:
    """Every contact has its second version, its boolean and its phone too, and is itself."""
    return len(brevo.contacts.by_id) == CONTACTS and all(
        brevo.contact(ext_id=f"tajo-{n}").attributes
        == {"AVG_WAIT_TIME": 2, "VIP": n >= FALSE, "SMS": f"1202555{n:04d}"}
        for n in range(CONTACTS)
    )


async def slowly(brevo) -> None:
    """Let so many wait that an import is worth it."""
    brevo.faults.append(Fault("latency", seconds=1.0, path="/v3/contacts", method="POST", times=40))


async def test_many_contacts_of_the_past_go_in_one_import_and_the_false_and_the_refused_singly(
    nats_server, sink, brevo
):
    before = calls(brevo, "/contacts")
    refused = {
        f"c{n}@example.com": file for n, file in ((110, "invalid_emails"), (111, "duplicate_phone_id"))
    }
    brevo.imports.refused_emails.update(refused)
    brevo.imports.takes_s = 1.0
    await slowly(brevo)

    await say_again(nats_server)
    await nats_server.all_acked(BREVO_SINK_PAST)

    assert right(brevo)
    assert calls(brevo, "/contacts/import") == 1
    (process,) = brevo.imports.processes.values()
    assert process.rows[0].keys() == {"email", "attributes"}
    assert not any("SMS" in row["attributes"] or row["attributes"]["VIP"] is False for row in process.rows)
    assert calls(brevo, "/contacts") - before == CONTACTS - len(process.rows) + len(
        [one for one in refused if any(row["email"] == one for row in process.rows)]
    )
    assert len(process.rows) >= 50
    read = [json.loads(message.data) for message in await nats_server.messages("RECEIPTS")]
    assert sum(one["outcome"] == "delivered" for one in read) == 2 * CONTACTS


@pytest.mark.parametrize("how", ["fails", "is refused", "is lost", "writes nothing"])
async def test_an_import_that_comes_to_nothing_costs_nothing(nats_server, sink, brevo, how):
    path = "/v3/contacts/import"
    match how:
        case "fails":
            brevo.imports.fails = 1
        case "is refused":
            brevo.faults.append(Fault("status", status=400, path=path, times=None))
        case "is lost":
            brevo.faults.append(Fault("reset_after_apply", path=path))
        case "writes nothing":
            brevo.imports.merge = lambda *_: None
    await slowly(brevo)

    await say_again(nats_server)
    await nats_server.all_acked(BREVO_SINK_PAST)

    assert calls(brevo, "/contacts/import") >= 1
    assert right(brevo)
    assert not await nats_server.messages("DEAD")


async def test_a_sink_killed_while_an_import_goes_on_tells_all_the_same(nats_server, sink, brevo):
    brevo.imports.takes_s = 60.0
    await slowly(brevo)
    await say_again(nats_server)
    deadline = time.monotonic() + 40
    while not brevo.imports.processes:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)

    await asyncio.to_thread(sink.end, signal.SIGKILL)
    brevo.faults.clear()
    brevo.imports.takes_s = 0.0
    for process in brevo.imports.processes.values():
        process.due = 0.0
    await asyncio.to_thread(sink.start, ready=True)
    await nats_server.all_acked(BREVO_SINK_PAST)

    assert right(brevo)


async def test_contacts_new_to_an_empty_account_go_by_import_with_their_phones(nats_server, service, brevo):
    one = service(
        "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key, TAJO_BREVO_URL=brevo.url,
        TAJO_BREVO_LOOK_S="0.3", TAJO_BREVO_RATE_FRACTION="1", TAJO_BREVO_IMPORT_FROM="50", TAJO_BREVO_IMPORT_NEW="1",
    )  # fmt: skip
    refused = "c111@example.com"
    brevo.imports.refused_emails[refused] = "duplicate_phone_id"
    await slowly(brevo)
    await asyncio.to_thread(one.start, ready=True)

    await say_again(nats_server)
    await nats_server.all_acked(BREVO_SINK_PAST)

    assert right(brevo)
    imported = [row for process in brevo.imports.processes.values() for row in process.rows]
    assert len(imported) >= 50
    assert all(row["attributes"]["VIP"] and row["attributes"]["SMS"] for row in imported)
    assert not await nats_server.messages("DEAD")
