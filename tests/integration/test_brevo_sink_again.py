"""What is tried again: by the sink, holding up nobody else; by `tajo dlq retry`, for whom it was first said of."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import Limits
from shared.command import ContactDelete, ContactRelink, ContactUpsert, EventTrack
from shared.topology import BREVO_SINK

FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)


def upsert(who: str, version: int = 1, email: str = "") -> ContactUpsert:
    return ContactUpsert(
        id=f"tajo-{who}/{version}/m/0", ext_id=f"tajo-{who}", version=version, mapping="m",
        email=email or f"{who}@example.com",
    )  # fmt: skip


def relink(was: str, now: str, version: int) -> ContactRelink:
    id_ = f"tajo-{was}/tajo-{now}/{version}"
    return ContactRelink(id=id_, ext_id=f"tajo-{now}", was=f"tajo-{was}", version=version, over=True)


def delete(who: str, version: int) -> ContactDelete:
    return ContactDelete(id=f"tajo-{who}/delete/{version}", ext_id=f"tajo-{who}", version=version)


def track(who: str, name: str = "SUPPORT_REQUESTED") -> EventTrack:
    return EventTrack(
        id=f"WT{who}/task.created", ext_id=f"tajo-{who}", name=name, time="2026-11-20T10:00:00.000Z"
    )


@pytest.fixture
async def brevo():
    sandbox = BrevoSandbox(limits=FAST)
    async with serving(sandbox) as url:
        sandbox.url = f"{url}/v3"
        yield sandbox


@pytest.fixture
async def sink(nats_server, service, brevo):
    one = service(
        "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key, TAJO_BREVO_URL=brevo.url,
        TAJO_BREVO_LOOK_S="0.3", TAJO_BREVO_RATE_FRACTION="1",
    )  # fmt: skip
    await asyncio.to_thread(one.start, ready=True)
    return one


async def say(nats_server, *said) -> None:
    await nats_server.say(*said)
    await nats_server.all_acked(BREVO_SINK)


async def retry(nats_server) -> None:
    """All dead letters there are."""
    await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tajo", "dlq", "retry", "--all"],
        env={**os.environ, "TAJO_NATS_URL": nats_server.url}, capture_output=True, check=True,
    )  # fmt: skip
    await nats_server.all_acked(BREVO_SINK)


async def until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def names(brevo) -> dict[str, str]:
    return {contact.email: contact.ext_id for contact in brevo.contacts.by_id.values()}


def refuse(brevo, method: str, path: str = "/v3/contacts", times: int = 1) -> None:
    body = {"code": "invalid_parameter", "message": "no"}
    brevo.faults.append(Fault("status", status=400, times=times, method=method, path=path, body=body))


@pytest.mark.parametrize(
    ("method", "command", "there"),
    [("DELETE", delete("a", 2), {}), ("PUT", relink("a", "b", 2), {"a@example.com": "tajo-b"})],
)
async def test_a_deletion_and_a_relink_that_were_refused_are_carried_out_when_they_are_said_again(
    nats_server, sink, brevo, *, method, command, there
):
    await say(nats_server, upsert("a"))
    refuse(brevo, method)
    await say(nats_server, command)
    assert names(brevo) == {"a@example.com": "tajo-a"}
    assert len(await nats_server.messages("DEAD")) == 1

    await retry(nats_server)

    assert names(brevo) == there
    assert not await nats_server.messages("DEAD")
    assert sink.process.poll() is None


@pytest.mark.parametrize("ledger_lost", [False, True])
async def test_an_event_said_again_goes_to_whom_it_was_said_of_though_another_has_the_name_now(
    nats_server, sink, brevo, *, ledger_lost
):
    brevo.event_log.refused_names.add("BAD")
    await say(nats_server, upsert("a", email="one@example.com"), upsert("c", email="two@example.com"))
    await say(nats_server, track("a", "BAD"))
    await say(nats_server, relink("a", "b", 2), relink("c", "a", 3))
    assert names(brevo) == {"one@example.com": "tajo-b", "two@example.com": "tajo-a"}
    await retry(nats_server)  # the cause is not mended: it is refused once more, and when it was said is kept
    assert not brevo.events
    brevo.event_log.refused_names.clear()
    if ledger_lost:
        await asyncio.to_thread(sink.end)
        shutil.rmtree(Path(sink.environment["TAJO_DATA_DIR"]) / "brevo-sink")
        await asyncio.to_thread(sink.start, ready=True)

    await retry(nats_server)

    (event,) = brevo.events
    assert brevo.contacts.by_id[event.contact_id].email == "one@example.com"
    assert not await nats_server.messages("DEAD")


async def test_nothing_said_again_brings_back_who_was_erased_since(nats_server, sink, brevo):
    brevo.event_log.refused_names.add("BAD")
    await say(nats_server, upsert("a"), track("a", "BAD"))
    refuse(brevo, "POST")
    await say(nats_server, upsert("a", 2))
    assert len(await nats_server.messages("DEAD")) == 2
    await say(nats_server, relink("a", "b", 3), delete("b", 4), upsert("b", 5, email="new@example.com"))
    brevo.event_log.refused_names.clear()

    await retry(nats_server)

    assert names(brevo) == {"new@example.com": "tajo-b"}
    assert not brevo.events
    assert not await nats_server.messages("DEAD")


async def test_an_upsert_said_again_after_its_contact_was_erased_does_not_bring_it_back(
    nats_server, sink, brevo
):
    await say(nats_server, upsert("a"))
    refuse(brevo, "POST")
    await say(nats_server, upsert("a", 2))
    await say(nats_server, delete("a", 3))
    assert names(brevo) == {}

    await retry(nats_server)

    assert names(brevo) == {}
    assert not await nats_server.messages("DEAD")


async def test_a_deletion_said_again_takes_nobody_who_has_the_name_since_and_says_why(
    nats_server, sink, brevo
):
    await say(nats_server, upsert("a", email="one@example.com"), upsert("c", email="two@example.com"))
    refuse(brevo, "DELETE")
    await say(nats_server, delete("a", 2))
    await say(nats_server, relink("a", "b", 3), relink("c", "a", 4))

    await retry(nats_server)

    assert names(brevo) == {"one@example.com": "tajo-b", "two@example.com": "tajo-a"}
    (letter,) = await nats_server.messages("DEAD")
    assert letter.headers["Tajo-Dead-Why"].startswith("a name in it was given to another contact")


async def test_a_relink_that_brevo_cannot_do_holds_up_only_what_shares_a_contact_with_it(
    nats_server, sink, brevo
):
    await say(nats_server, *(upsert(who) for who in "ace"))
    fault = Fault("status", status=500, times=None, method="PUT", path="/v3/contacts/tajo-a")
    brevo.faults.append(fault)

    await nats_server.say(relink("a", "b", 2), relink("b", "f", 3), relink("c", "d", 2), delete("e", 2))
    await until(lambda: names(brevo) == {"a@example.com": "tajo-a", "c@example.com": "tajo-d"})
    asked = [request.path for request in brevo.requests]
    assert not any("tajo-b" in path for path in asked)
    await until(lambda: sum("tajo-a" in request.path for request in brevo.requests) >= 2)
    brevo.faults.remove(fault)
    await nats_server.all_acked(BREVO_SINK)

    assert names(brevo) == {"a@example.com": "tajo-f", "c@example.com": "tajo-d"}
