"""Reading a Brevo account back: every page of it, while others write there, and whatever passes by itself."""

import asyncio
import tracemalloc
from datetime import UTC, datetime

import httpx
import pytest
from prometheus_client import CollectorRegistry

from brevo_sink.brevo import Brevo
from brevo_sink.budget import Budget
from brevo_sink.metrics import Metrics
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import UNLIMITED
from shared.replay import Expected
from tajo import readback
from tajo.drift import Contact, Ours

TIME = "2026-11-20T09:00:00.000Z"
WHEN = {"names": ["ASKED"], "since": "2026-11-01", "until": "2026-11-30"}


@pytest.fixture
async def account():
    """A sandbox that also writes by itself: `account.post(path, body)`."""
    sandbox = BrevoSandbox(limits=UNLIMITED)
    async with (
        serving(sandbox) as url,
        httpx.AsyncClient(base_url=f"{url}/v3", headers={"api-key": sandbox.api_key}) as client,
    ):
        sandbox.url = f"{url}/v3"

        async def post(path: str, **body) -> None:
            (await client.post(path, json=body)).raise_for_status()

        sandbox.post = post
        yield sandbox


@pytest.fixture
async def brevo(account):
    one = Brevo(
        url=account.url, api_key=account.api_key, budget=Budget(1, "extended"),
        metrics=Metrics(CollectorRegistry()), log_calls=False,
    )  # fmt: skip
    yield one
    await one.close()


@pytest.fixture
def found():
    one = readback.Found()
    yield one
    one.close()


def expected(number: int, *events: str) -> Expected:
    return Expected(
        ext_id=f"tajo-{number}", email=f"c{number}@example.com", attributes={"FIRSTNAME": f"C {number}"},
        list_ids=(32,), events=tuple((id_, "ASKED", TIME) for id_ in events),
    )  # fmt: skip


async def fill(account, count: int) -> None:
    for number in range(count):
        await account.post(
            "/contacts", ext_id=f"tajo-{number}", email=f"c{number}@example.com", listIds=[32],
            attributes={"FIRSTNAME": f"C {number}"},
        )  # fmt: skip


async def track(account, ext_id: str, id_: str) -> None:
    await account.post(
        "/events", event_name="ASKED", event_date=TIME, identifiers={"ext_id": ext_id},
        event_properties={"idempotency_key": id_},
    )  # fmt: skip


def nothing(*_: object) -> None:
    """Nobody looks."""


async def test_every_page_is_read_and_what_somebody_did_by_hand_is_found(account, brevo, found, monkeypatch):
    monkeypatch.setattr(readback, "CONTACTS_MAX", 10)
    monkeypatch.setattr(readback, "EVENTS_MAX", 4)
    await fill(account, 35)
    await account.post("/contacts", email="theirs@example.com", ext_id="crm-9")
    for number in range(9):
        await track(account, f"tajo-{number}", f"WT{number}/task.created")
    await track(account, "tajo-3", "WT3/task.created")  # doubled
    await account.post("/events", event_name="ASKED", event_date=TIME, identifiers={"ext_id": "tajo-1"})
    account.contact(ext_id="tajo-5").attributes["FIRSTNAME"] = "by hand"
    looks = []

    await readback.read_contacts(brevo, found, on_look=lambda *look: looks.append(look))
    await readback.read_events(brevo, found, **WHEN, on_look=lambda *look: looks.append(look))

    assert (found.contacts, found.events) == (35, 10)
    assert ("contacts", 36, 36) in looks
    assert ("events", 11, 11) in looks
    everybody = [expected(number, f"WT{number}/task.created") for number in range(9)]
    everybody += [expected(number) for number in range(9, 34)] + [expected(99)]
    everybody[0] = expected(0)
    everybody[7], everybody[8] = expected(7, "WT8/task.created"), expected(8, "WT7/task.created")
    differences = [(one.kind, one.ext_id) for one in readback.compare(everybody, found)]
    assert sorted(differences) == [
        ("attribute", "tajo-5"), ("contact_extra", "tajo-34"), ("contact_missing", "tajo-99"),
        ("event_doubled", "tajo-3"), ("event_elsewhere", "tajo-7"), ("event_elsewhere", "tajo-8"),
        ("event_extra", "tajo-0"), ("event_extra", "tajo-7"), ("event_extra", "tajo-8"),
    ]  # fmt: skip


async def test_what_is_as_it_shall_be_has_equal_hashes(account, brevo, found):
    await fill(account, 12)
    await track(account, "tajo-3", "WT3/task.created")
    await readback.read_contacts(brevo, found, on_look=nothing)
    await readback.read_events(brevo, found, **WHEN, on_look=nothing)
    everybody = [expected(number, *(["WT3/task.created"] if number == 3 else [])) for number in range(12)]
    ours = Ours(frozenset({"FIRSTNAME"}), frozenset({32}))

    shall, there = readback.totals(everybody, found, ours)

    assert shall == there == readback.Held(12, 12, 12, 1, shall.hash)
    assert not list(readback.compare(everybody, found, ours))
    shall, there = readback.totals(everybody[:-1], found, ours)
    assert shall.hash != there.hash


async def test_a_contact_deleted_while_it_is_read_hides_no_other(account, brevo, found, monkeypatch):
    monkeypatch.setattr(readback, "CONTACTS_MAX", 10)
    await fill(account, 40)

    def look(_what: str, read: int, _count: int) -> None:
        if read > 20 and account.contact(ext_id="tajo-0"):
            for number in range(5):
                account.contacts._remove(account.contact(ext_id=f"tajo-{number}"))

    await readback.read_contacts(brevo, found, on_look=look)

    assert {one.ext_id for one in found.all_contacts()} >= {f"tajo-{number}" for number in range(5, 40)}


async def test_events_that_come_meanwhile_are_counted_once(account, brevo, found, monkeypatch):
    monkeypatch.setattr(readback, "EVENTS_MAX", 4)
    await fill(account, 1)
    for number in range(10):
        await track(account, "tajo-0", f"WT{number}/task.created")
    came: list[None] = []

    def look(_what: str, read: int, _count: int) -> None:
        if read == 4 and not came:
            came.append(None)
            account.event_log._accept(
                {
                    "event_name": "ASKED", "event_date": "2026-11-20T09:00:01Z",
                    "identifiers": {"ext_id": "tajo-0"}, "event_properties": {"idempotency_key": "late"},
                },
                datetime.now(UTC),
            )  # fmt: skip

    await readback.read_contacts(brevo, found, on_look=nothing)
    await readback.read_events(brevo, found, **WHEN, on_look=look)

    _, events = found.of("tajo-0")
    assert sorted(one.id for one in events) == sorted(["late", *(f"WT{n}/task.created" for n in range(10))])


async def test_a_contact_named_by_somebody_else_or_set_aside_is_its_customers(account, brevo):
    await account.post("/contacts", ext_id="crm-1", email="c1@example.com", listIds=[32])
    await account.post("/contacts", ext_id="tajo-2", email="c2@example.com")
    await account.post("/contacts", ext_id="tajo-2.17", attributes={"SMS": "+12025550102"})
    await account.post("/contacts", ext_id="tajo-old", attributes={"SMS": "+12025550103"})
    for name in ("crm-1", "tajo-2", "tajo-2.17", "tajo-old"):
        await track(account, name, f"of {name}")
    found = readback.Found({"crm-1": "tajo-1", "tajo-old": "tajo-2"})

    await readback.read_contacts(brevo, found, on_look=nothing)
    await readback.read_events(brevo, found, **WHEN, on_look=nothing)

    first, second = found.of("tajo-1"), found.of("tajo-2")
    assert first[0].email == "c1@example.com"
    assert [one.id for one in first[1]] == ["of crm-1"]
    assert second[0].email == "c2@example.com"
    assert sorted(one.id for one in second[1]) == ["of tajo-2", "of tajo-2.17", "of tajo-old"]
    assert list(found.owners()) == ["tajo-1", "tajo-2"]
    found.close()


async def test_what_passes_by_itself_is_tried_again_and_what_does_not_says_what_to_do(
    account, brevo, found, monkeypatch
):
    monkeypatch.setattr(readback, "AGAIN_S", 0.01)
    await fill(account, 2)
    account.faults.append(Fault("status", status=500, path="/v3/contacts", times=2))
    account.faults.append(Fault("status", status=429, path="/v3/contacts", times=1))

    await readback.read_contacts(brevo, found, on_look=nothing)

    assert found.contacts == 2
    account.faults.append(Fault("status", status=401, path="/v3/contacts", times=1))
    with pytest.raises(readback.ReadBackError) as refused:
        await readback.read_contacts(brevo, found, on_look=nothing)
    assert "IP address" in str(refused.value)
    assert "authorised_ips" in refused.value.remedy


async def test_many_contacts_are_kept_in_a_file_and_not_in_memory(found):
    tracemalloc.start()
    for start in range(0, 20_000, 1000):
        found.add_contacts(
            Contact(id=n, ext_id=f"tajo-{n}", email=f"c{n}@example.com", attributes={"X": "x" * 500})
            for n in range(start, start + 1000)
        )
        await asyncio.sleep(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.contacts == 20_000
    assert peak < 5_000_000  # bytes, of Python's; all of them would be 12,000,000
