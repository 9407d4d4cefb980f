"""The sink as a process: delivery as the rule says, deletion, batches refused in part or at all, and the pause."""

import asyncio
import json
import re
import signal
import time
from datetime import datetime

import httpx
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import Limits
from shared import command, dead, trace
from shared.command import ContactDelete, ContactUpsert, EventTrack
from shared.topology import BREVO_SINK, BREVO_SINK_PAST

FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
BATCH = "/v3/events/batch"


def upsert(who: str, version: int = 1, **more) -> ContactUpsert:
    usual = {"email": f"{who}@example.com", "attributes": {"FIRSTNAME": who}}
    return ContactUpsert(
        id=f"{who}/{version}/m/0", ext_id=who, version=version, mapping="m", **{**usual, **more}
    )


def track(who: str, number: int = 1, **more) -> EventTrack:
    usual = {"name": "SUPPORT_REQUESTED", "time": "2026-11-20T10:00:00.000Z"}
    return EventTrack(id=f"{who}/WT{number}", ext_id=who, **{**usual, **more})


def delete(who: str, version: int = 5) -> ContactDelete:
    return ContactDelete(id=f"{who}/delete/{version}", ext_id=who, version=version)


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


def keys(brevo) -> list[str]:
    return [event.properties["idempotency_key"] for event in brevo.events]


async def until(condition, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def metric(sink, line: str) -> float:
    """The value of one line of /metrics; 0 where there is none."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{sink.url}/metrics")).text
    found = re.search(rf"^{re.escape(line)} (.+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def outcomes(nats_server, kind: str) -> list[str]:
    """What was said of commands of a kind, without the announcements."""
    read = [json.loads(message.data) for message in await nats_server.messages("RECEIPTS")]
    return [one["outcome"] for one in read if one["kind"] == kind and one["outcome"] != "sending"]


@pytest.mark.parametrize(
    ("delivery", "fault", "there", "ends"),
    [
        ("exactly_once", "reset_after_apply", 1, "arrived"),
        ("exactly_once", "reset", 1, "absent"),
        ("at_least_once", "reset_after_apply", 2, "sent_again"),
        ("at_least_once", "reset", 1, "sent_again"),
        ("at_most_once", "reset_after_apply", 1, "unresolved"),
        ("at_most_once", "reset", 0, "unresolved"),
    ],
)
async def test_what_nobody_knows_ends_as_the_events_rule_says_and_is_counted(
    nats_server, sink, brevo, *, delivery, fault, there, ends
):
    await nats_server.say(upsert("ana"))
    await nats_server.all_acked(BREVO_SINK)
    brevo.faults.append(Fault(fault, path=BATCH))

    await nats_server.say(track("ana", delivery=delivery))
    await nats_server.all_acked(BREVO_SINK)

    assert keys(brevo) == [track("ana").id] * there
    assert not await nats_server.messages("DEAD")
    assert await metric(sink, 'tajo_brevo_sink_ambiguous_total{kind="event.track"}') == 1
    assert await metric(sink, f'tajo_brevo_sink_read_back_total{{result="{ends}"}}') == 1
    asked_back = any(request.route == "/events" for request in brevo.requests)
    assert asked_back == (delivery == "exactly_once")


async def test_how_long_a_command_took_since_the_log_had_its_cause_is_measured_unless_it_is_past(
    nats_server, sink
):
    stored_ms = round(time.time() * 1000) - 7000

    await nats_server.say(
        command.to_message(upsert("ana"), trace.start(), stored_ms=stored_ms),
        command.to_message(upsert("bo"), trace.start(), stored_ms=stored_ms, past=True),
    )
    await nats_server.all_acked(BREVO_SINK)
    await nats_server.all_acked(BREVO_SINK_PAST)

    name = "tajo_brevo_sink_latency_seconds"
    assert await metric(sink, f'{name}_count{{kind="contact.upsert"}}') == 1
    assert await metric(sink, f'{name}_sum{{kind="contact.upsert"}}') >= 7


@pytest.mark.parametrize(("delivery", "there"), [("at_least_once", 2), ("at_most_once", 1)])
async def test_a_sink_killed_mid_call_does_with_the_event_as_its_rule_says(
    nats_server, sink, brevo, delivery, there
):
    await nats_server.say(upsert("ana"))
    await nats_server.all_acked(BREVO_SINK)
    brevo.faults.append(Fault("hang_after_apply", path=BATCH))
    await nats_server.say(track("ana", delivery=delivery))
    await until(lambda: keys(brevo))

    await asyncio.to_thread(sink.end, signal.SIGKILL)
    await asyncio.to_thread(sink.start, ready=True)
    await nats_server.all_acked(BREVO_SINK)

    assert keys(brevo) == [track("ana").id] * there
    assert await metric(sink, 'tajo_brevo_sink_ambiguous_total{kind="event.track"}') == 1


async def test_a_contact_is_deleted_with_what_was_said_before_and_made_anew_by_what_is_said_later(
    nats_server, sink, brevo
):
    await nats_server.say(upsert("ana"), track("ana", 1), upsert("bob"))
    await nats_server.all_acked(BREVO_SINK)
    first = brevo.contact(ext_id="ana").id
    brevo.faults.append(Fault("status", status=500, path="/v3/contacts", method="POST"))

    await nats_server.say(upsert("ana", 4), track("ana", 2), delete("ana"))
    await until(lambda: brevo.contact(ext_id="ana") is None)
    await nats_server.all_acked(BREVO_SINK)
    gone = set(keys(brevo))
    await nats_server.say(upsert("ana", 6), track("ana", 3))
    await nats_server.all_acked(BREVO_SINK)

    assert "ana/WT2" not in gone
    assert brevo.contact(ext_id="ana").id != first
    assert brevo.contact(ext_id="bob")
    assert sorted(keys(brevo)) == ["ana/WT1", "ana/WT3"]
    assert await outcomes(nats_server, "contact.delete") == ["delivered"]
    assert not await nats_server.messages("DEAD")


async def test_what_is_not_there_any_more_is_deleted_and_what_may_not_be_is_a_dead_letter(
    nats_server, sink, brevo
):
    await nats_server.say(delete("nobody"))
    await nats_server.all_acked(BREVO_SINK)
    await nats_server.say(upsert("owner"))
    await nats_server.all_acked(BREVO_SINK)
    await nats_server.say(delete("owner"))  # owner@example.com registered the account
    await nats_server.all_acked(BREVO_SINK)

    assert await outcomes(nats_server, "contact.delete") == ["delivered", "rejected"]
    assert [letter.headers["Tajo-Dead-Tries"] for letter in await nats_server.messages("DEAD")] == ["1"]
    assert brevo.contact(ext_id="owner")


@pytest.mark.parametrize(("bad", "good"), [(1, 199), (17, 63), (60, 0), (1, 0)])
async def test_of_a_batch_each_bad_event_is_a_dead_letter_and_each_good_one_is_there_once(
    nats_server, sink, brevo, bad, good
):
    brevo.event_log.refused_names.add("BAD")
    wanted = [track("ana", number) for number in range(bad + good)]
    refused = {wanted[(1 + good // bad) * number].id for number in range(bad)}
    sent = [track("ana", n, name="BAD") if one.id in refused else one for n, one in enumerate(wanted)]
    await nats_server.say(upsert("ana"), *sent)
    await nats_server.all_acked(BREVO_SINK)

    letters = await nats_server.messages("DEAD")
    assert sorted(json.loads(letter.data)["id"] for letter in letters) == sorted(refused)
    assert {letter.headers["Tajo-Dead-Why"] for letter in letters} == {"refused: event_name is not allowed"}
    assert sorted(keys(brevo)) == sorted({one.id for one in wanted} - refused)


async def test_an_account_that_takes_no_batches_gets_events_one_by_one_in_order_and_it_is_said(
    nats_server, sink, brevo
):
    brevo.faults.append(Fault("status", status=404, path=BATCH, times=None))
    brevo.faults.append(Fault("status", status=429, path="/v3/events", method="POST", every=7, times=3))
    await nats_server.say(upsert("ana"), *(track("ana", number) for number in range(40)))
    await nats_server.all_acked(BREVO_SINK)

    assert keys(brevo) == [track("ana", number).id for number in range(40)]
    assert not await nats_server.messages("DEAD")
    assert sum(request.route == "/events/batch" for request in brevo.requests) == 1
    assert "events go one by one: Brevo refuses batches (404" in await asyncio.to_thread(sink.wait, 200)


async def test_what_brevo_cannot_take_is_made_fit_or_never_sent(nats_server, sink, brevo):
    whole = track("ana", 1, properties={"a b/ü": 1.5, "yes": True, "count": 3.0, "n" * 300: "x" * 60_000})
    await nats_server.say(
        upsert("ana"), whole, track("ana", 2, name="n" * 256), track("ana", 3, time="yesterday")
    )
    await nats_server.all_acked(BREVO_SINK)

    (event,) = brevo.events
    assert {name: value for name, value in event.properties.items() if len(str(value)) < 50} == {
        "a_b__": "1.5", "yes": "yes", "count": 3, "idempotency_key": "ana/WT1",
    }  # fmt: skip
    assert event.properties["n" * 255].startswith("xxx")
    whys = {
        json.loads(one.data)["id"]: one.headers["Tajo-Dead-Why"] for one in await nats_server.messages("DEAD")
    }
    assert whys["ana/WT2"].startswith("event_name is no name at Brevo")
    assert whys["ana/WT3"] == "event_date is no time"
    assert [request.status for request in brevo.requests if request.route == "/events/batch"] == [202]


async def test_it_says_how_many_calls_a_thousand_commands_took(nats_server, sink, brevo):
    await nats_server.say(
        *(upsert("ana", version) for version in range(1, 301)), *(track("ana", n) for n in range(700))
    )
    await nats_server.all_acked(BREVO_SINK)

    assert 0 < await metric(sink, "tajo_brevo_sink_calls_per_1000_commands") < 60  # 14 look at the account


async def test_rejects_in_a_row_pause_and_each_pause_is_longer_until_something_works(
    nats_server, sink, brevo
):
    brevo.event_log.refused_names.add("BAD")
    await nats_server.say(*(upsert(f"c{n}") for n in range(3)))
    await nats_server.all_acked(BREVO_SINK)
    brevo.faults.append(Fault("latency", seconds=0.01, times=None))

    for number in range(2):
        await nats_server.say(*(track(f"c{n % 3}", 100 * number + n, name="BAD") for n in range(50)))
        assert "50 commands in a row" in await asyncio.to_thread(sink.wait, 503)
        await asyncio.to_thread(sink.wait, 200)
    await nats_server.say(track("c1", 1000))
    await nats_server.all_acked(BREVO_SINK)

    assert keys(brevo) == ["c1/WT1000"]
    assert len(await nats_server.messages("DEAD")) == 100
    lines = [json.loads(line) for line in (await asyncio.to_thread(sink.end)).splitlines()]
    at = [datetime.fromisoformat(one["timestamp"]) for one in lines if one["event"] in ("paused", "resumed")]
    assert [(over - begun).total_seconds() >= least for begun, over, least in zip(at[::2], at[1::2], (4.9, 9.9), strict=True)] == [True, True]  # fmt: skip


async def test_a_blocklisted_contact_keeps_its_email_and_gets_the_rest(nats_server, sink, brevo):
    await nats_server.say(upsert("ana"), upsert("bob"))
    await nats_server.all_acked(BREVO_SINK)
    brevo.contact(ext_id="ana").blocklisted = True
    looks = sum(request.method == "GET" for request in brevo.requests)

    await nats_server.say(upsert("ana", 2), upsert("bob", 2))
    await nats_server.all_acked(BREVO_SINK)
    same = sum(request.method == "GET" for request in brevo.requests) - looks
    await nats_server.say(
        upsert("ana", 3, email="new@example.com", list_ids=(33,)), upsert("bob", 3, email="bo@example.com")
    )
    await nats_server.all_acked(BREVO_SINK)

    assert same == 0  # nobody is looked at whose email is as it was
    ana = brevo.contact(ext_id="ana")
    assert (ana.email, ana.blocklisted, ana.list_ids) == ("ana@example.com", True, {33})
    assert brevo.contact(ext_id="bob").email == "bo@example.com"


async def test_a_conflict_is_parked_where_that_is_the_policy_and_said_again_once_it_is_solved(
    nats_server, service, brevo
):
    sink = service(
        "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key, TAJO_BREVO_URL=brevo.url,
        TAJO_BREVO_CONFLICTS="park", TAJO_BREVO_RATE_FRACTION="1",
    )  # fmt: skip
    await asyncio.to_thread(sink.start, ready=True)
    phone = {"SMS": "+12025550147"}
    await nats_server.say(upsert("ana", attributes=phone))
    await nats_server.all_acked(BREVO_SINK)
    await nats_server.say(
        track("bob"), upsert("bob", attributes=phone), upsert("eve", attributes={"SMS": "12"})
    )
    await nats_server.all_acked(BREVO_SINK)
    letters = await nats_server.messages("DEAD")
    without_bob = {contact.ext_id for contact in brevo.contacts.by_id.values()}
    await nats_server.say(upsert("ana", 2, attributes={"SMS": "+12025550148"}))
    await nats_server.all_acked(BREVO_SINK)
    read = [
        dead.from_message(sequence=n, written="", headers=one.headers, body=one.data)
        for n, one in enumerate(letters)
    ]
    await nats_server.say(*(dead.again(letter) for letter in read))
    await nats_server.all_acked(BREVO_SINK)

    assert [letter.headers["Tajo-Dead-Why"] for letter in letters] == [
        "SMS belongs to another contact", "its contact was refused: SMS belongs to another contact",
    ]  # fmt: skip
    assert without_bob == {"ana", "eve"}  # what is no phone at all is nobody else's
    assert brevo.contact(ext_id="bob").attributes["SMS"] == "12025550147"
    assert keys(brevo) == [track("bob").id]


async def test_what_happens_now_goes_before_a_long_past_which_is_told_all_the_same(nats_server, service):
    slow = BrevoSandbox(
        limits=Limits(contacts_per_s=40, contacts_per_h=None, events_per_s=40, events_per_h=None)
    )
    async with serving(slow) as url:
        sink = service(
            "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=slow.api_key,
            TAJO_BREVO_URL=f"{url}/v3", TAJO_BREVO_RATE_FRACTION="1", TAJO_BREVO_PLAN="extended",
        )  # fmt: skip
        past = [one for n in range(400) for one in (upsert(f"p{n}"), track(f"p{n}"))]
        await nats_server.say(*(command.to_message(one, trace.start(), past=True) for one in past))
        await asyncio.to_thread(sink.start, ready=True)
        await until(lambda: len(slow.contacts.by_id) > 40)
        told = []
        for number in range(3):
            await nats_server.say(upsert(f"now{number}"), track(f"now{number}"))
            await until(lambda number=number: f"now{number}/WT1" in keys(slow))
            told.append(len(slow.contacts.by_id))
        await nats_server.all_acked(BREVO_SINK_PAST)

        assert told[-1] < 300
        assert sorted(keys(slow)) == sorted(
            [f"now{n}/WT1" for n in range(3)] + [f"p{n}/WT1" for n in range(400)]
        )
        assert len(slow.contacts.by_id) == 403
        assert not await nats_server.messages("DEAD")
