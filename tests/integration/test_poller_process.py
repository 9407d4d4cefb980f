"""The poller as a process, on a real broker, reading a local Twilio over the wire."""

import asyncio
import random
import signal
import sqlite3
import stat
import time
from collections import Counter
from functools import partial
from pathlib import Path

import httpx
import nats
import pytest

from poller.heard import Heard, Stored
from poller.items import read_events
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import Limits
from sandbox.load import send
from sandbox.play import Target
from sandbox.rest import TwilioSandbox
from sandbox.traffic import compare, traffic
from sandbox.twilio import ACCOUNT_SID, taskrouter_webhook
from shared.event import RawEvent, to_message
from shared.publish import publish

PRODUCTS = ("FLEX", "TASKROUTER", "CONVERSATIONS", "EVENTS")
TOKEN, PUBLIC = "token-of-twilio", "https://hooks.example.com"
PEOPLE, EVENTS = traffic(2500, random.Random(7))
EVENTS.sort(key=lambda event: event.time_ms)
END_S = EVENTS[-1].time_ms / 1000 + 5
SHIPPED = Path(__file__).parents[2] / "config/tajo.yaml"
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
DAY = "resources: [tasks], look_back_s: 86400"


def twilio_of(events, **how) -> TwilioSandbox:
    return TwilioSandbox(token=TOKEN, events=list(events), clock=lambda: END_S, **how)


def environment(url: str, tmp_path, poller: str = DAY) -> dict[str, str]:
    """What a poller is told: where Twilio is, and a connector file that polls five times a second."""
    text = SHIPPED.read_text()
    config = tmp_path / "tajo.yaml"
    config.write_text(
        text.replace("    debug: false", f"    debug: false\n    poller: {{interval_s: 0.2, {poller}}}")
    )
    return {
        **{f"TAJO_TWILIO_{name}_URL": f"{url}/twilio/{name.lower()}" for name in PRODUCTS},
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "TAJO_CONFIG": str(config),
    }


async def stored(url: str, stream: str = "TWILIO") -> Counter:
    """How often each id is in a stream."""
    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        subscription = await jetstream.subscribe("", stream=stream, ordered_consumer=True)
        count = (await jetstream.stream_info(stream)).state.messages
        messages = [await subscription.next_msg() for _ in range(count)]
        return Counter(message.headers.get("ce-id") or message.headers["Nats-Msg-Id"] for message in messages)
    finally:
        await connection.close()


async def until(what, seconds: float = 60):
    """Return what `what` returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (result := await what()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return result


async def ready(url: str) -> tuple[int, str]:
    try:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{url}/health/ready")
            return answer.status_code, answer.text.strip()
    except httpx.TransportError:
        return 0, ""


async def say(url: str, events: list[RawEvent]) -> None:
    connection = await nats.connect(url)
    await publish(connection, [to_message(event, "") for event in events])
    await connection.close()


def as_webhooks_would(events, *, with_sid: bool = True) -> list[RawEvent]:
    return [
        RawEvent(
            id=event.sid if with_sid else f"{event.type}/{event.resource_sid}/{event.time_ms}",
            product="taskrouter", type=event.type, source="/webhooks/taskrouter", subject=event.resource_sid,
            account_sid=ACCOUNT_SID, time_ms=event.time_ms, content_type="", body=b"",
        )
        for event in events
    ]  # fmt: skip


async def test_what_no_webhook_told_is_in_the_log_within_an_interval_and_the_rest_is_not_stored_again(
    nats_server, service, tmp_path
):
    twilio = twilio_of(EVENTS[:2400], shuffled=True)
    told, told_without_sid = EVENTS[:1000], EVENTS[1000:1100]
    await say(nats_server.url, as_webhooks_would(told) + as_webhooks_would(told_without_sid, with_sid=False))
    async with serving(BrevoSandbox(), twilio) as url:
        poller = service("poller", TAJO_NATS_URL=nats_server.url, **environment(url, tmp_path))
        await asyncio.to_thread(poller.start, ready=True)
        await until(lambda: _holds(nats_server.url, 2400))

        twilio.events += EVENTS[2400:]
        began = time.monotonic()
        await until(lambda: _holds(nats_server.url, len(EVENTS)))
        assert time.monotonic() - began < 5

        polls = twilio.answered.total()
        await until(lambda: _asked(twilio, polls + 6))  # two more, of three pages each

    assert await stored(nats_server.url) == Counter(
        {event.sid for event in EVENTS} - {event.sid for event in told_without_sid}
        | {one.id for one in as_webhooks_would(told_without_sid, with_sid=False)}
    )
    assert await stored(nats_server.url, "DEAD") == Counter()


async def _holds(url: str, count: int) -> bool:
    connection = await nats.connect(url)
    try:
        return (await connection.jetstream().stream_info("TWILIO")).state.messages >= count
    finally:
        await connection.close()


async def _asked(twilio: TwilioSandbox, calls: int) -> bool:
    return twilio.answered.total() >= calls


@pytest.mark.parametrize("index_lost", [False, True])
async def test_killed_in_the_middle_of_its_pages_everything_is_in_the_log_once(
    nats_server, service, tmp_path, index_lost
):
    twilio = twilio_of(EVENTS, shuffled=True)
    twilio.faults += [Fault("latency", seconds=1.0, path="/twilio/taskrouter", times=None)]
    async with serving(BrevoSandbox(), twilio) as url:
        poller = service(
            "poller",
            TAJO_NATS_URL=nats_server.url,
            **environment(url, tmp_path, "resources: [tasks], look_back_s: 3500"),
        )
        for _ in range(2):  # of three pages
            await asyncio.to_thread(poller.start)
            before = len(await stored(nats_server.url))
            await until(lambda least=before + 1: _holds(nats_server.url, least))
            await asyncio.to_thread(poller.end, signal.SIGKILL)
            if index_lost:
                for file in (tmp_path / "data/poller").glob("heard.sqlite*"):
                    file.unlink()
        assert len(await stored(nats_server.url)) < len(EVENTS)
        await asyncio.to_thread(poller.start)
        await until(lambda: _holds(nats_server.url, len(EVENTS)))

    assert await stored(nats_server.url) == Counter(event.sid for event in EVENTS)


async def test_reading_what_webhooks_told_makes_no_call_to_brevo_and_what_they_missed_arrives(
    everything, tmp_path
):
    missed = [event for event in EVENTS if event.type == "task.completed"][-40:]
    heard = [event for event in EVENTS if event not in missed]
    brevo, twilio = BrevoSandbox(limits=FAST), twilio_of(heard)
    async with serving(brevo, twilio) as url:
        stack = everything(
            TAJO_BREVO_URL=f"{url}/v3", BREVO_API_KEY=brevo.api_key, TAJO_PUBLIC_URL=PUBLIC, TAJO_API_KEY="x",
            **environment(url, tmp_path, poller=f"{DAY}, enabled: false"),
        )  # fmt: skip
        await asyncio.to_thread(stack.start, ready=True)
        target = Target(stack.url, PUBLIC, TOKEN)
        await send([partial(taskrouter_webhook, event, "") for event in heard], target)
        await until(lambda: _only_missing(brevo, len(missed)))
        await asyncio.to_thread(stack.end)
        calls = len(brevo.requests)

        stack.environment.update(environment(url, tmp_path, poller=f"{DAY}, overlap_s: 86400"))
        await asyncio.to_thread(stack.start, ready=True)
        polls = twilio.answered.total()
        await until(lambda: _asked(twilio, polls + 12))
        assert {request.route for request in list(brevo.requests)[calls:]} <= {
            "/account", "/contacts/attributes", "/contacts/lists/{id}",
        }  # fmt: skip

        twilio.events += missed
        await until(lambda: _only_missing(brevo, 0))
        assert compare(brevo, PEOPLE).nothing


async def _only_missing(brevo: BrevoSandbox, count: int) -> bool:
    found = compare(brevo, PEOPLE)
    assert not found.doubled
    return found.lost.total() == count and not found.wrong


async def test_an_event_that_shows_up_late_is_found_within_the_overlap(nats_server, service, tmp_path):
    twilio = twilio_of(EVENTS[10:20])
    async with serving(BrevoSandbox(), twilio) as url:
        poller = service("poller", TAJO_NATS_URL=nats_server.url, **environment(url, tmp_path))
        await asyncio.to_thread(poller.start, ready=True)
        await until(lambda: _holds(nats_server.url, 10))
        late = [event for event in EVENTS if event.time_ms > (END_S - 250) * 1000]
        twilio.events += late
        await until(lambda: _holds(nats_server.url, 10 + len(late)))


@pytest.mark.parametrize(
    ("poller", "token", "says"),
    [
        (DAY, "wrong", "Twilio does not know this account sid with this token"),
        (f"workspace_sid: WS{'0' * 32}", TOKEN, f"no TaskRouter workspace WS{'0' * 32}"),
    ],
)
async def test_what_a_person_must_mend_makes_it_unready_and_says_how(  # noqa: PLR0917 - fixtures
    nats_server, service, tmp_path, poller, token, says
):
    async with serving(BrevoSandbox(), twilio_of(EVENTS)) as url:
        told = {**environment(url, tmp_path, poller), "TWILIO_AUTH_TOKEN": token}
        process = service("poller", TAJO_NATS_URL=nats_server.url, **told)
        await asyncio.to_thread(process.start)
        status, text = await until(lambda: _says(process.url, says))
        assert status == 503
        assert token == TOKEN or token not in text


async def _says(url: str, words: str):
    answer = await ready(url)
    return answer if words in answer[1] else None


async def test_of_two_tokens_the_one_that_holds_is_used(nats_server, service, tmp_path):
    async with serving(BrevoSandbox(), twilio_of(EVENTS[:5])) as url:
        told = {**environment(url, tmp_path), "TWILIO_AUTH_TOKEN": f"old-one,{TOKEN}"}
        process = service("poller", TAJO_NATS_URL=nats_server.url, **told)
        await asyncio.to_thread(process.start)
        await until(lambda: _holds(nats_server.url, 5))


async def test_without_credentials_it_is_ready_and_says_that_it_polls_nothing(nats_server, service):
    process = service("poller", TAJO_NATS_URL=nats_server.url)
    await asyncio.to_thread(process.start, ready=True)

    assert (await ready(process.url))[
        1
    ] == "ready; polls nothing: TWILIO_ACCOUNT_SID is not set to an account sid"


async def test_what_is_no_event_is_a_dead_letter_once(nats_server, service, tmp_path):
    twilio = twilio_of(EVENTS[:3])
    page = {"events": [{"event_type": "task.created", "sid": "EV1"}, 7], "meta": {"next_page_url": None}}
    twilio.faults += [Fault("status", status=200, body=page, path="/twilio/taskrouter", every=2, times=2)]
    async with serving(BrevoSandbox(), twilio) as url:
        poller = service("poller", TAJO_NATS_URL=nats_server.url, **environment(url, tmp_path))
        await asyncio.to_thread(poller.start, ready=True)
        await until(lambda: _dead(nats_server.url, 2))
        await until(lambda: _asked(twilio, 20))

    assert list((await stored(nats_server.url, "DEAD")).values()) == [1, 1]


async def _dead(url: str, count: int) -> bool:
    return len(await stored(url, "DEAD")) >= count


def test_nobody_but_its_owner_reads_the_index(tmp_path):
    heard = Heard(tmp_path / "heard.sqlite")
    heard.add([Stored("a", 100, polled=False)], 1)

    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    heard.close()


def test_the_index_forgets_what_is_old_and_starts_over_for_another_log(tmp_path):
    heard = Heard(tmp_path / "heard.sqlite")
    heard.add(
        [Stored("a", 100, polled=False), Stored("b", 200, polled=True), Stored("a", 300, polled=True)], 3
    )
    heard.close()
    heard = Heard(tmp_path / "heard.sqlite")

    assert heard.sequence == 3
    assert [heard.origin(["x", "a"]), heard.origin(["b"]), heard.origin(["x"])] == ["webhook", "poller", None]
    heard.forget(150)
    assert heard.origin(["a"]) is None
    assert heard.origin(["b"])
    heard.start_over()
    assert heard.sequence == 0
    assert heard.origin(["b"]) is None
    heard.close()
    assert sqlite3.connect(tmp_path / "heard.sqlite").execute("SELECT count(*) FROM heard").fetchone() == (0,)


def test_what_must_not_be_stored_is_taken_out():
    item = (
        b'{"sid": "EV' + b"0" * 32 + b'", "event_type": "task.created", "event_date_ms": 1760000000000,'
        b' "resource_sid": "WT' + b"0" * 32 + b'", "event_data": {"task_attributes": "{\\"note\\": \\"4111 1111 1111 1111\\"}"}}'
    )  # fmt: skip
    items, unreadable = read_events([item], account_sid=ACCOUNT_SID, keep_bodies=False)

    assert not unreadable
    assert b"4111" not in items[0].event.body
    assert read_events([item.replace(b"4111 ", b"")], account_sid="", keep_bodies=False)[0][0].event.body
