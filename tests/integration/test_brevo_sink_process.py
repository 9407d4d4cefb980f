"""The sink as a process: a real broker before it, the local Brevo behind it, and every way that can go wrong."""

import asyncio
import json
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx
import nats
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import Limits
from shared import bus, command
from shared.bus import Publisher
from shared.command import ContactRelink, ContactUpsert, EventTrack
from shared.message import MSG_ID, Message
from shared.trace import start

FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
MAPPING = "m1"


def upsert(who: str, version: int = 1, **more) -> ContactUpsert:
    attributes = {"FIRSTNAME": who, **more.pop("attributes", {})}
    return ContactUpsert(
        id=f"{who}/{version}/{MAPPING}/{len(attributes)}", ext_id=who, version=version, mapping=MAPPING,
        email=more.pop("email", f"{who}@example.com"), attributes=attributes, list_ids=(32,), **more,
    )  # fmt: skip


def track(who: str, number: int = 1, name: str = "SUPPORT_REQUESTED", **properties) -> EventTrack:
    return EventTrack(
        id=f"{who}/WT{number}/task.created", ext_id=who, name=name, time="2026-11-20T10:00:00.000Z",
        properties={"task_sid": f"WT{number}", **properties},
    )  # fmt: skip


async def say(url: str, *commands) -> None:
    broker = bus.connect(url, service="test")
    await broker.connect()
    await Publisher(broker).publish(
        [one if isinstance(one, Message) else command.to_message(one, start()) for one in commands]
    )
    await broker.stop()


async def until(condition, seconds: float = 25) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def all_acked(url: str, seconds: float = 30) -> None:
    connection = await nats.connect(url)
    deadline = time.monotonic() + seconds
    try:
        while True:
            info = await connection.jetstream().consumer_info("BREVO", "brevo-sink")
            if info.num_pending == 0 and info.num_ack_pending == 0:
                return
            assert time.monotonic() < deadline, info
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def messages(url: str, stream: str) -> list:
    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        last = (await jetstream.stream_info(stream)).state.last_seq
        return [await jetstream.get_msg(stream, number) for number in range(1, last + 1)]
    finally:
        await connection.close()


async def receipts(url: str) -> list[tuple[str, str, tuple[str, ...]]]:
    read = [json.loads(message.data) for message in await messages(url, "RECEIPTS")]
    return [(one["outcome"], one["kind"], tuple(one["ids"])) for one in read]


@pytest.fixture
async def brevo():
    sandbox = BrevoSandbox(limits=FAST)
    async with serving(sandbox) as url:
        sandbox.url = f"{url}/v3"
        yield sandbox


@pytest.fixture
def sink(nats_server, service, brevo):
    return service(
        "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key, TAJO_BREVO_URL=brevo.url,
        TAJO_BREVO_LOOK_S="0.3", TAJO_BREVO_RATE_FRACTION="1",
    )  # fmt: skip


async def begin(sink) -> None:
    await asyncio.to_thread(sink.start, ready=True)


def keys(brevo) -> list[str]:
    return [event.properties["idempotency_key"] for event in brevo.events]


async def test_a_contact_and_then_its_events_reach_brevo_once_however_often_they_are_asked_for(
    nats_server, sink, brevo
):
    await begin(sink)
    commands = [upsert("ana"), track("ana", 1), track("ana", 2), upsert("bob"), track("bob")]

    await say(nats_server.url, *commands)
    await all_acked(nats_server.url)
    again = [command.to_message(one, start()) for one in commands]
    await say(
        nats_server.url,
        *(Message(m.subject, m.body, {**m.headers, MSG_ID: f"replay-{m.headers[MSG_ID]}"}) for m in again),
    )
    await all_acked(nats_server.url)

    assert sorted(keys(brevo)) == sorted(one.id for one in commands if isinstance(one, EventTrack))
    assert not brevo.orphans
    assert brevo.contact(ext_id="ana").email == "ana@example.com"
    assert brevo.contact(ext_id="ana").list_ids == {32}
    assert [r.route for r in brevo.requests if r.method == "POST"].count(
        "/contacts"
    ) <= 4  # asked for again, told again
    said = await receipts(nats_server.url)
    assert {outcome for outcome, _, _ in said} == {"delivered", "sending"}
    delivered = [id_ for outcome, _, ids in said if outcome == "delivered" for id_ in ids]
    assert set(delivered) == {one.id for one in commands}


async def test_only_the_newest_of_many_versions_is_sent_and_an_older_never_after_it(nats_server, sink, brevo):
    await say(
        nats_server.url,
        *(upsert("ana", version, attributes={"AVG_WAIT_TIME": version}) for version in range(1, 101)),
    )
    await begin(sink)
    await all_acked(nats_server.url)
    calls = sum(r.method == "POST" and r.path == "/v3/contacts" for r in brevo.requests)

    await say(nats_server.url, upsert("ana", 50, attributes={"AVG_WAIT_TIME": 50, "CSAT_SCORE": 1}))
    await all_acked(nats_server.url)

    assert calls < 10
    assert brevo.contact(ext_id="ana").attributes["AVG_WAIT_TIME"] == 100
    assert "CSAT_SCORE" not in brevo.contact(ext_id="ana").attributes


async def test_of_a_batch_only_the_bad_events_are_dead_letters_each_with_its_reason(nats_server, sink, brevo):
    await begin(sink)
    bad = [track("ana", number, name="no name!") for number in (3, 7)]
    good = [track("ana", number) for number in range(10, 20)]

    await say(nats_server.url, upsert("ana"), *good[:5], *bad, *good[5:])
    await all_acked(nats_server.url)

    assert sorted(keys(brevo)) == sorted(one.id for one in good)
    letters = await messages(nats_server.url, "DEAD")
    assert sorted(command.from_body(letter.data).id for letter in letters) == sorted(one.id for one in bad)
    assert all(
        letter.headers["Tajo-Dead-Who"] == "brevo-sink" and letter.headers["Tajo-Dead-Why"]
        for letter in letters
    )
    assert all(letter.headers["Tajo-Dead-Where"].startswith("BREVO:") for letter in letters)


async def test_a_phone_that_is_another_contacts_is_left_out_and_the_rest_is_told(nats_server, sink, brevo):
    await begin(sink)
    phone = {"SMS": "+12025550147"}

    await say(nats_server.url, upsert("ana", attributes=phone))
    await all_acked(nats_server.url)
    await say(nats_server.url, upsert("bob", attributes=phone), track("bob"))
    await all_acked(nats_server.url)

    assert brevo.contact(ext_id="ana").attributes["SMS"] == "12025550147"
    assert "SMS" not in brevo.contact(ext_id="bob").attributes
    assert keys(brevo) == [track("bob").id]
    dropped = [json.loads(m.data).get("dropped") for m in await messages(nats_server.url, "RECEIPTS")]
    assert ["SMS"] in dropped


async def test_a_refused_contact_takes_its_events_along_and_nobody_elses(nats_server, sink, brevo):
    brevo.faults.append(Fault("status", status=422, path="/v3/contacts", method="POST", times=None))
    brevo.faults.insert(0, Fault("latency", path="/v3/contacts/", times=None))
    await begin(sink)

    await say(nats_server.url, track("ana", 1), track("ana", 2), upsert("ana"))
    await all_acked(nats_server.url)
    brevo.faults.clear()
    await say(nats_server.url, upsert("bob"), track("bob"))
    await all_acked(nats_server.url)

    assert keys(brevo) == [track("bob").id]
    whys = [letter.headers["Tajo-Dead-Why"] for letter in await messages(nats_server.url, "DEAD")]
    assert sorted(why.partition(":")[0] for why in whys)[1:] == ["its contact was refused"] * 2


@pytest.mark.parametrize(("status", "word"), [(401, "IP address"), (402, "plan"), (403, "may not")])
async def test_a_refused_key_pauses_burns_nothing_and_goes_on_by_itself(
    nats_server, sink, brevo, status, word
):
    await begin(sink)
    brevo.faults.append(Fault("status", status=status, times=None))

    await say(
        nats_server.url, *(one for number in range(60) for one in (upsert(f"c{number}"), track(f"c{number}")))
    )
    said = await asyncio.to_thread(sink.wait, 503)
    brevo.faults.clear()
    await asyncio.to_thread(sink.wait, 200)
    await all_acked(nats_server.url)

    assert word in said
    assert len(set(keys(brevo))) == len(keys(brevo)) == 60
    assert not await messages(nats_server.url, "DEAD")
    errors = (await asyncio.to_thread(sink.end)).decode()
    assert errors.count("paused") == 1
    assert brevo.api_key not in errors


async def test_what_stands_wrong_at_brevo_is_named_at_the_start_all_at_once(nats_server, sink, brevo):
    del brevo.account.lists[33]
    for name, kind in (("AVG_WAIT_TIME", "text"), ("VIP_TIER", "float")):
        answer = brevo.account.attributes.__class__
        assert answer is dict
        brevo.account.attributes[name] = brevo.account.attributes["FIRSTNAME"].__class__(name, "normal", kind)
    await asyncio.to_thread(sink.start)

    said = await asyncio.to_thread(sink.wait, 503)
    while "looking" in said or "not read yet" in said:
        said = await asyncio.to_thread(sink.wait, 503)

    assert "attribute AVG_WAIT_TIME is text at Brevo and must be float" in said
    assert "attribute VIP_TIER is float at Brevo and must be text" in said
    assert "list 33 does not exist" in said


async def test_a_429_is_waited_out_and_nothing_is_lost(nats_server, sink, brevo):
    await begin(sink)
    brevo.faults.append(Fault("status", status=429, times=4))

    await say(
        nats_server.url, *(one for number in range(20) for one in (upsert(f"c{number}"), track(f"c{number}")))
    )
    await all_acked(nats_server.url)

    assert len(keys(brevo)) == 20
    assert not await messages(nats_server.url, "DEAD")


@pytest.mark.parametrize("kind", ["reset_after_apply", "reset", "status_after_apply"])
async def test_an_uncertain_batch_is_read_back_and_each_event_is_there_once(nats_server, sink, brevo, kind):
    await begin(sink)
    brevo.faults.append(Fault(kind, status=500, path="/v3/events/batch"))
    brevo.faults.append(Fault(kind, status=500, path="/v3/contacts", method="POST"))

    await say(nats_server.url, upsert("ana"), *(track("ana", number) for number in range(30)))
    await all_acked(nats_server.url)

    assert sorted(keys(brevo)) == sorted(track("ana", number).id for number in range(30))
    assert any(outcome == "in_doubt" for outcome, _, _ in await receipts(nats_server.url))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_ended_mid_way_and_started_again_nothing_is_lost_or_doubled(nats_server, sink, brevo, number):
    await begin(sink)
    brevo.faults.append(Fault("latency", seconds=0.05, times=None))
    wanted = [one for n in range(120) for one in (upsert(f"c{n}"), *(track(f"c{n}", k) for k in range(5)))]

    await say(nats_server.url, *wanted)
    await until(lambda: len(brevo.events) > 50)
    await asyncio.to_thread(sink.end, number)
    await begin(sink)
    await all_acked(nats_server.url, 60)

    assert len(keys(brevo)) == len(set(keys(brevo))) == 600
    assert not brevo.orphans
    assert all(brevo.contact(ext_id=f"c{n}") for n in range(120))


async def test_what_is_no_command_is_a_dead_letter(nats_server, sink, brevo):
    await begin(sink)

    await say(
        nats_server.url,
        Message("brevo.00.event.track", b'{"kind":"event.track"}', {MSG_ID: "bad"}),
        upsert("ana"),
    )
    await all_acked(nats_server.url)

    letter = (await messages(nats_server.url, "DEAD"))[0]
    assert letter.data == b'{"kind":"event.track"}'
    assert "missing required field" in letter.headers["Tajo-Dead-Why"]
    assert brevo.contact(ext_id="ana")


async def test_without_a_broker_it_goes_on_when_the_broker_is_back(nats_server, sink, brevo):
    await begin(sink)
    await say(nats_server.url, upsert("ana"))
    await all_acked(nats_server.url)

    nats_server.kill()
    await asyncio.to_thread(sink.wait, 503)
    nats_server.start()
    await asyncio.to_thread(sink.wait, 200)
    await say(nats_server.url, track("ana"))
    await all_acked(nats_server.url)

    assert keys(brevo) == [track("ana").id]


async def test_plain_http_beyond_loopback_is_refused(service):
    sink = service("brevo-sink", BREVO_API_KEY="k", TAJO_BREVO_URL="http://brevo.example.com/v3")

    sink.start()
    errors = await asyncio.to_thread(sink.ended)

    assert sink.process.returncode == 78
    assert b"TAJO_BREVO_URL is not https: set TAJO_ALLOW_HTTP=1" in errors


def relink(was: str, now: str, *, over: bool = False) -> ContactRelink:
    return ContactRelink(id=f"{was}/{now}/9", ext_id=now, was=was, version=9, over=over)


async def test_a_customer_named_anew_keeps_the_contact_and_what_was_said_under_the_old_name(
    nats_server, sink, brevo
):
    await begin(sink)
    await say(nats_server.url, upsert("tajo-a"), track("tajo-a", 1))
    await all_acked(nats_server.url)

    await say(
        nats_server.url, track("tajo-a", 2), relink("tajo-a", "tajo-b"), upsert("tajo-b", version=9),
        track("tajo-a", 3), track("tajo-b", 4),
    )  # fmt: skip
    await all_acked(nats_server.url)

    assert len(brevo.contacts.by_id) == 1
    assert brevo.contact(ext_id="tajo-a") is None
    assert len(keys(brevo)) == len(set(keys(brevo))) == 4
    assert not brevo.orphans
    assert {event.contact_id for event in brevo.events} == {brevo.contact(ext_id="tajo-b").id}


async def test_of_two_contacts_that_are_one_customer_the_one_with_the_mail_goes_on_and_none_is_deleted(
    nats_server, sink, brevo
):
    await begin(sink)
    phone = ContactUpsert(
        id="p", ext_id="tajo-phone", version=1, mapping="m", attributes={"SMS": "+12025550101"}
    )
    await say(nats_server.url, phone, track("tajo-phone", 1), upsert("tajo-mail"), track("tajo-mail", 2))
    await all_acked(nats_server.url)
    mailed = brevo.contact(ext_id="tajo-mail").id

    await say(
        nats_server.url, relink("tajo-mail", "tajo-phone", over=True), upsert("tajo-phone", version=9),
        track("tajo-phone", 3), track("tajo-mail", 4),
    )  # fmt: skip
    await all_acked(nats_server.url)

    assert len(brevo.contacts.by_id) == 2
    assert brevo.contact(ext_id="tajo-phone").id == mailed
    assert sorted(event.contact_id == mailed for event in brevo.events) == [False, True, True, True]


async def test_a_name_that_somebody_else_gave_a_contact_is_kept(nats_server, sink, brevo):
    async with httpx.AsyncClient(base_url=brevo.url, headers={"api-key": brevo.api_key}) as client:
        made = await client.post("/contacts", json={"email": "tajo-a@example.com", "ext_id": "crm-1"})
    await begin(sink)

    await say(nats_server.url, upsert("tajo-a"), track("tajo-a", 1))
    await all_acked(nats_server.url)
    await say(
        nats_server.url,
        relink("tajo-a", "tajo-b"),
        upsert("tajo-a", version=9),
        track("tajo-b", 2),
    )
    await all_acked(nats_server.url)

    assert made.status_code == 201
    assert len(brevo.contacts.by_id) == 1
    assert brevo.contact(ext_id="crm-1").list_ids == {32}
    assert len(keys(brevo)) == 2
    assert not brevo.orphans


def ledger_of(sink) -> dict[str, list]:
    """What a sink that has ended keeps, but how far it has read."""
    path = Path(sink.environment["TAJO_DATA_DIR"]) / "brevo-sink/ledger.sqlite"
    with closing(sqlite3.connect(path)) as sql:
        return {
            table: sql.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in ("event", "contact")
        }


def once_more(wanted) -> list[Message]:
    """The same commands, as a replay publishes them."""
    again = (command.to_message(one, start()) for one in wanted)
    return [Message(m.subject, m.body, {**m.headers, MSG_ID: f"replay-{m.headers[MSG_ID]}"}) for m in again]


def lose(sink) -> None:
    shutil.rmtree(sink.environment["TAJO_DATA_DIR"])


@pytest.mark.parametrize("kind", ["hang", "hang_after_apply", "reset_after_apply"])
async def test_killed_mid_call_and_its_ledger_lost_each_event_is_there_once(nats_server, sink, brevo, kind):
    await begin(sink)
    wanted = [one for n in range(60) for one in (upsert(f"c{n}"), *(track(f"c{n}", k) for k in range(5)))]
    await say(nats_server.url, *wanted[: len(wanted) // 2])
    await all_acked(nats_server.url)
    brevo.faults.append(Fault("latency", seconds=0.05, path="/v3/events/batch", times=3))
    brevo.faults.append(Fault(kind, path="/v3/events/batch", times=None))
    brevo.faults.append(Fault(kind, path="/v3/contacts", method="POST", times=2))

    await say(nats_server.url, *wanted[len(wanted) // 2 :])
    await until(lambda: brevo.faults[1].kind == kind and len(sending(brevo)) > 4)
    await asyncio.to_thread(sink.end, signal.SIGKILL)
    brevo.faults.clear()
    lose(sink)
    await begin(sink)
    await say(nats_server.url, *once_more(wanted))
    await all_acked(nats_server.url, 60)

    assert sorted(keys(brevo)) == sorted(one.id for one in wanted if isinstance(one, EventTrack))
    assert not brevo.orphans
    assert not await messages(nats_server.url, "DEAD")


def sending(brevo) -> list:
    return [r for r in brevo.requests if r.route == "/events/batch"]


async def test_a_lost_ledger_is_made_again_as_it_was_and_sends_nothing_twice(nats_server, sink, brevo):
    await begin(sink)
    brevo.faults.append(Fault("status", status=429, path="/v3/events/batch", times=2))
    brevo.faults.append(Fault("reset_after_apply", path="/v3/events/batch"))
    wanted = [one for n in range(40) for one in (upsert(f"c{n}"), *(track(f"c{n}", k) for k in range(5)))]
    await say(nats_server.url, *wanted, track("c1", 77, name="no name!"), upsert("c2", 7))
    await all_acked(nats_server.url)
    await asyncio.to_thread(sink.end)
    before = ledger_of(sink)
    calls = len(sending(brevo))

    lose(sink)
    await begin(sink)
    await asyncio.to_thread(sink.end)
    rebuilt = ledger_of(sink)
    await begin(sink)
    await say(nats_server.url, *once_more(one for one in wanted if isinstance(one, EventTrack)))
    await all_acked(nats_server.url)
    said = (await asyncio.to_thread(sink.end)).decode()

    assert len(before["event"]) == 201
    assert rebuilt == before
    assert len(sending(brevo)) == calls
    assert said.count("receipts_read") == 1  # of three starts: a whole ledger has nothing to read


async def test_an_old_copy_of_the_ledger_is_brought_up_to_date_before_the_first_command(
    nats_server, sink, brevo, tmp_path
):
    folder, copy = Path(sink.environment["TAJO_DATA_DIR"]), tmp_path / "copy"
    await begin(sink)
    await say(nats_server.url, upsert("ana"), track("ana", 1))
    await all_acked(nats_server.url)
    await asyncio.to_thread(sink.end)
    shutil.copytree(folder, copy)
    await begin(sink)
    await say(nats_server.url, upsert("ana", 2), track("ana", 2), upsert("bob"))
    await all_acked(nats_server.url)
    await asyncio.to_thread(sink.end)
    before = ledger_of(sink)

    lose(sink)
    shutil.copytree(copy, folder)
    await begin(sink)
    await asyncio.to_thread(sink.end)

    assert ledger_of(sink) == before


async def test_while_it_reads_receipts_it_is_unready_and_says_so(nats_server, sink, brevo):
    connection = await nats.connect(nats_server.url)
    jetstream = connection.jetstream()
    await jetstream.publish("receipt.dropped.event.track", b'{"outcome":"unheard of","kind":"x","ids":[]}')

    await asyncio.to_thread(sink.start)
    why = await asyncio.to_thread(sink.wait, 503)
    while "cannot be read" not in why:
        why = await asyncio.to_thread(sink.wait, 503)
    await jetstream.purge_stream("RECEIPTS")
    await asyncio.to_thread(sink.wait, 200)
    await connection.close()

    assert "RECEIPTS:1" in why
    assert "$.outcome" in why


async def test_a_lost_ledger_knows_the_names_of_contacts_again(nats_server, sink, brevo):
    async with httpx.AsyncClient(base_url=brevo.url, headers={"api-key": brevo.api_key}) as client:
        await client.post("/contacts", json={"email": "tajo-x@example.com", "ext_id": "crm-1"})
    await begin(sink)
    await say(nats_server.url, upsert("tajo-a"), upsert("tajo-x"), track("tajo-a", 1), track("tajo-x", 2))
    await all_acked(nats_server.url)
    await say(nats_server.url, relink("tajo-a", "tajo-b"), upsert("tajo-b", version=9))
    await all_acked(nats_server.url)
    await asyncio.to_thread(sink.end)

    lose(sink)
    await begin(sink)
    await say(nats_server.url, track("tajo-a", 3), track("tajo-x", 4), upsert("tajo-x", version=9))
    await all_acked(nats_server.url)

    assert len(brevo.contacts.by_id) == 2
    assert brevo.contact(ext_id="crm-1").email == "tajo-x@example.com"
    assert not brevo.orphans
    assert len(keys(brevo)) == len(set(keys(brevo))) == 4
