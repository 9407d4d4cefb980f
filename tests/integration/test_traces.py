"""Traces as a collector receives them: the day of the demo through real processes, and single services."""

import asyncio
import base64
import hashlib
import itertools
import json
import re
import time
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Received
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from mapper.story import given
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.day import ANA, BEN, CHLOE, webhooks
from sandbox.expected import CONTACTS
from sandbox.faults import Fault
from sandbox.play import Target, play, wait_until_equal
from sandbox.rest import TwilioSandbox
from sandbox.twilio import sid
from shared.command import ContactUpsert, EventTrack
from shared.event import to_message
from shared.message import MSG_ID, Message
from shared.topology import BREVO_SINK, MAPPER
from shared.trace import start
from tajo.trace import find

ROOT = Path(__file__).parents[2]
CALL = ROOT / "tests/golden/voice_handled/given.ndjson"
WAY = (
    "ingest POST",
    "TWILIO publish",
    "mapper process",
    "BREVO publish",
    "brevo-sink send",
    "POST /events/batch",
)
KINDS = {
    "ingest POST": Received.SPAN_KIND_SERVER,
    "TWILIO publish": Received.SPAN_KIND_PRODUCER,
    "mapper process": Received.SPAN_KIND_CONSUMER,
    "BREVO publish": Received.SPAN_KIND_PRODUCER,
    "brevo-sink send": Received.SPAN_KIND_CONSUMER,
    "poller read": Received.SPAN_KIND_INTERNAL,
}
OPERATIONS = {
    "TWILIO publish": ("TWILIO", "publish", "send"),
    "mapper process": ("TWILIO", "process", "process"),
    "BREVO publish": ("BREVO", "publish", "send"),
    "brevo-sink send": ("BREVO", "send", "process"),
}
SERVICES = {
    "ingest POST": "ingest", "mapper process": "mapper", "BREVO publish": "mapper", "brevo-sink send": "brevo-sink",
    "POST /events/batch": "brevo-sink", "poller read": "poller",
}  # fmt: skip
MAPPING = "0123456789ab"


def said(span) -> dict[str, str | int | bool]:
    """Its attributes."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def service_of(collector) -> dict[bytes, str]:
    """Of each span, by id, the service that recorded it."""
    return {
        span.span_id: next(
            one.value.string_value for one in each.resource.attributes if one.key == "service.name"
        )
        for each in collector.resources
        for scope in each.scope_spans
        for span in scope.spans
    }


def check_whole(spans) -> dict[bytes, Received]:
    """No orphan, no link to nothing, no id twice.  Returns them by id."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        if span.parent_span_id:
            assert by_id[span.parent_span_id].trace_id == span.trace_id, span.name
        for link in span.links:
            assert by_id[link.span_id].trace_id == link.trace_id, span.name
    return by_id


def way_to(span, by_id) -> tuple[str, ...]:
    """The names from the root to it."""
    names = [span.name]
    while span.parent_span_id:
        span = by_id[span.parent_span_id]
        names.append(span.name)
    return tuple(reversed(names))


def settings(url: str, brevo: BrevoSandbox, twilio: TwilioSandbox) -> dict[str, str]:
    products = ("flex", "taskrouter", "conversations", "events")
    return {
        "TAJO_BREVO_URL": f"{url}/v3", "BREVO_API_KEY": brevo.api_key, "TAJO_API_KEY": "the-key-of-this-test",
        "TWILIO_ACCOUNT_SID": twilio.account_sid, "TWILIO_AUTH_TOKEN": twilio.token,
        "TAJO_PUBLIC_URL": "https://hooks.example.com",
        **{f"TAJO_TWILIO_{name.upper()}_URL": f"{url}/twilio/{name}" for name in products},
    }  # fmt: skip


def talkative(folder: Path) -> str:
    """A connector file with everything logged that can be."""
    text = (ROOT / "config/tajo.yaml").read_text()
    text, levels = re.subn(r"log_level: \w+", "log_level: verbose", text)
    text, calls = re.subn(r"log_api_calls: \w+", "log_api_calls: true", text)
    assert levels == calls == 1
    (folder / "talkative.yaml").write_text(text)
    return str(folder / "talkative.yaml")


def personal() -> set[str]:
    """Every name, mail and phone of the day."""
    words = {agent.name for agent in (ANA, BEN, CHLOE)} | {agent.login for agent in (ANA, BEN, CHLOE)}
    for contact in CONTACTS:
        words |= {
            contact.email,
            str(contact.attributes.get("SMS", "")),
            str(contact.attributes.get("FIRSTNAME", "")),
        }
    return words - {""}


def forms(word: str) -> set[bytes]:
    """A word as it is, as a URL, as JSON, as bytes in hex and base64, and hashed as one would first think of."""
    found = set[str]()
    for one in {word, word.lower(), f"+{word}" if word.isdecimal() else word}:
        found |= {
            one,
            quote(one),
            quote(one, safe=""),
            quote_plus(one),
            json.dumps(one)[1:-1],
            one.encode().hex(),
        }
        found.add(base64.b64encode(one.encode()).decode().rstrip("="))
        found |= {hashlib.new(name, one.encode()).hexdigest() for name in ("md5", "sha1", "sha256")}
    return {one.encode() for one in found}


def test_a_word_is_looked_for_as_it_might_be_written():
    looked_for = forms("maria.lopez@example.com") | forms("12025550101")

    assert {b"maria.lopez%40example.com", b"%2B12025550101", b"bWFyaWEubG9wZXpAZXhhbXBsZS5jb20"} <= looked_for
    assert hashlib.sha256(b"maria.lopez@example.com").hexdigest().encode() in looked_for
    assert len(personal()) >= 9 * 2 + 6


async def test_each_task_of_the_day_is_one_connected_trace_and_nothing_names_a_customer(
    everything, collector, tmp_path
):
    brevo, twilio = BrevoSandbox(), TwilioSandbox()
    async with serving(brevo, twilio) as url:
        tajo = everything(
            **settings(url, brevo, twilio),
            TAJO_CONFIG=talkative(tmp_path),
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        )
        await asyncio.to_thread(tajo.start, ready=True)
        public_url = tajo.environment["TAJO_PUBLIC_URL"]
        await play(webhooks(), Target(tajo.url, public_url, twilio.token), lambda: None)
        await wait_until_equal(url, CONTACTS, deadline_s=90, on_look=lambda _: None)
        nats_url, task_sid = tajo.environment["TAJO_NATS_URL"], sid("WT", "tom calls")
        shown = await find(nats_url, task_sid, hours=24, jaeger_url="http://jaeger:16686/")
        one_event = await find(nats_url, shown.events[0].id, hours=24)
        surveyed = await find(nats_url, sid("WT", "maria calls"), hours=24)  # by its call
        log = await asyncio.to_thread(tajo.end)
    by_id, services = check_whole(collector.spans), service_of(collector)
    ways, kinds = defaultdict(set), Counter()
    for span in by_id.values():
        about = said(span)
        kinds[span.name] += 1
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.kind == KINDS.get(span.name, Received.SPAN_KIND_CLIENT), span.name
        assert services[span.span_id] == SERVICES.get(span.name, services[span.span_id])
        if span.name in OPERATIONS:
            destination = about["messaging.destination.name"], about["messaging.operation.name"]
            assert (*destination, about["messaging.operation.type"]) == OPERATIONS[span.name]
            assert about["messaging.system"] == "nats"
            assert about.get("messaging.message.id") or about["messaging.batch.message_count"] > 1
        if span.kind == Received.SPAN_KIND_CLIENT:
            assert about["url.full"].endswith(about["url.template"])
            assert {"server.address", "server.port", "http.request.method"} <= about.keys()
        if span.name in ("BREVO publish", "brevo-sink send"):
            assert about["messaging.message.id"] == about["tajo.command_id"]
        if span.name == "POST /events/batch":
            ways[said(by_id[span.parent_span_id])["tajo.command_id"]].add(way_to(span, by_id))

    # Two commands of one trace in one call share the call's span, as one was sent for both.
    sent = {said(one)["tajo.command_id"]: one for one in by_id.values() if one.name == "brevo-sink send"}
    called = {(one.trace_id) for one in by_id.values() if one.name == "POST /events/batch"}
    for contact in CONTACTS:
        for event in contact.events:
            of_task = [
                one for one in sent.values() if said(one).get("twilio.task_sid") == sid("WT", event.task)
            ]
            assert of_task
            assert {way_to(one, by_id) for one in of_task} == {WAY[:-1]}
            assert {one.trace_id for one in of_task} <= called
    assert {way for found in ways.values() for way in found} == {WAY}
    assert kinds["ingest POST"] == len(webhooks())
    batched = [one for one in by_id.values() if one.name == "POST /events/batch" and len(one.links) > 1]
    for one in batched:  # for whom it was made
        assert {by_id[link.span_id].name for link in one.links} == {"BREVO publish"}

    told = [command for command in shown.commands if command.kind == "event.track"]
    (tom,) = [contact for contact in CONTACTS if contact.email == "tom.becker@example.com"]
    assert Counter(command.name for command in told) == Counter(event.name for event in tom.events)
    for command in told:
        assert [hop.what for hop in command.hops] == ["heard", "said", "sending", "delivered"]
        assert command.trace in {span.trace_id.hex() for span in sent.values()}
    assert {command.verdict for command in shown.commands} <= {"delivered", "superseded"}
    assert any(command.kind == "contact.upsert" for command in shown.commands)
    assert {"task.created", "reservation.accepted", "task.completed"} <= {
        raw.type.removeprefix("taskrouter.") for raw in shown.events
    }
    assert {one.url for one in shown.traces} == {
        f"http://jaeger:16686/trace/{one.id}" for one in shown.traces
    }
    assert [raw.where for raw in one_event.events] == [shown.events[0].where]
    assert {"CSAT_SUBMITTED"} <= {command.name for command in surveyed.commands}
    assert {command.hops[0].what for command in surveyed.commands} == {"heard"}
    assert "survey.survey.completed" in {raw.type for raw in surveyed.events}

    lines = [json.loads(line) for line in log.decode().splitlines() if line.startswith("{")]
    calls = [line for line in lines if line["event"] in ("brevo_call", "twilio_call")]
    assert {"POST /events/batch", "POST /contacts", "GET /v1/Workspaces/{WorkspaceSid}/Events"} <= {
        f"{line['method']} {line['route']}" for line in calls
    }
    assert all(line["status"] and line["ms"] >= 0 and line.get("request_id") for line in calls)
    told = [by_id[bytes.fromhex(line["span_id"])].name for line in calls if line["route"] == "/events/batch"]
    assert set(told) == {"brevo-sink send"}
    secrets = [brevo.api_key, twilio.token, "the-key-of-this-test"]
    for word in itertools.chain.from_iterable(map(forms, [*personal(), *secrets])):
        assert word not in log
        assert word not in collector.bytes


@pytest.fixture
def mapper(nats_server, service, collector):
    return service("mapper", TAJO_NATS_URL=nats_server.url, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)


def call(ratio: float) -> list[Message]:
    return [to_message(event, start(ratio)) for event in given(CALL.read_bytes())]


UNREADABLE = Message(
    "twilio.AC1.01.taskrouter.task.created", b"\xff\xfe{", {MSG_ID: "EVbad", "traceparent": start()}
)


async def test_of_a_batch_each_message_that_is_sampled_has_a_span_and_no_other(
    nats_server, mapper, collector
):
    sampled, others = call(1.0), call(0.0)
    mixed = [sampled[0], *others[1:]]

    await nats_server.say(*mixed)
    await asyncio.to_thread(mapper.start, ready=True)
    await nats_server.all_acked(MAPPER)
    await asyncio.to_thread(mapper.end)

    processed = [span for span in collector.spans if span.name == "mapper process"]
    assert [said(span)["messaging.message.id"] for span in processed] == [sampled[0].headers[MSG_ID]]
    assert said(processed[0])["messaging.batch.message_count"] == len(mixed)
    assert {span.trace_id.hex() for span in collector.spans} == {
        sampled[0].headers["traceparent"].split("-")[1]
    }


async def test_of_what_is_not_sampled_only_a_failure_is_told_by_itself_and_linked(
    nats_server, mapper, collector
):
    await nats_server.say(*call(0.0), UNREADABLE)
    await asyncio.to_thread(mapper.start, ready=True)
    await nats_server.all_acked(MAPPER)
    await asyncio.to_thread(mapper.end)

    (failed,) = collector.spans
    _, trace_id, span_id, _ = UNREADABLE.headers["traceparent"].split("-")
    assert (failed.name, failed.status.code, failed.status.message) == (
        "mapper process", Status.STATUS_CODE_ERROR, "unreadable",
    )  # fmt: skip
    assert failed.parent_span_id == b""
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in failed.links] == [(trace_id, span_id)]


async def test_a_rebuild_is_a_trace_of_its_own_linked_to_what_it_hears_again(
    nats_server, mapper, collector, tmp_path
):
    await nats_server.say(*call(1.0))
    await asyncio.to_thread(mapper.start, ready=True)
    await nats_server.all_acked(MAPPER)
    await asyncio.to_thread(mapper.end)
    before = {span.span_id for span in collector.spans}
    originals = {message.headers["traceparent"][3:52] for message in await nats_server.messages("TWILIO")}

    (tmp_path / "data/mapper/book.sqlite").unlink()
    await asyncio.to_thread(mapper.start, ready=True)
    await asyncio.to_thread(mapper.end)

    after = [span for span in collector.spans if span.span_id not in before]
    roots = [span for span in after if not span.parent_span_id]
    (refold,) = [span for span in roots if span.name == "mapper refold"]
    assert {span.name for span in roots} == {"mapper refold", "mapper retell"}
    assert {f"{link.trace_id.hex()}-{link.span_id.hex()}" for link in refold.links} == originals
    assert said(refold)["messaging.batch.message_count"] == len(originals)
    said_again = Counter(span.name for span in after if span.parent_span_id)
    assert set(said_again) == {"BREVO publish"}
    assert {span.trace_id for span in after} == {root.trace_id for root in roots}
    assert not {span.trace_id.hex() for span in after} & {original[:32] for original in originals}


async def test_a_command_that_brevo_refuses_is_told_with_its_call_though_it_is_not_sampled(
    nats_server, service, collector
):
    brevo = BrevoSandbox()
    async with serving(brevo) as url:
        sink = service(
            "brevo-sink", TAJO_NATS_URL=nats_server.url, BREVO_API_KEY=brevo.api_key, TAJO_BREVO_URL=f"{url}/v3",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_TRACES_SAMPLER="always_off",
        )  # fmt: skip
        await asyncio.to_thread(sink.start, ready=True)
        brevo.faults.append(Fault("status", status=400, path="/v3/events/batch"))
        upsert = ContactUpsert(
            id="meg/1", ext_id="meg", version=1, mapping=MAPPING, email="meg@example.com", attributes={"FIRSTNAME": "Meg"}
        )  # fmt: skip
        track = EventTrack(
            id="WT1/task.created", ext_id="meg", name="SUPPORT_REQUESTED", time="2026-11-20T10:00:00.000Z"
        )
        await nats_server.say(upsert, track)
        await nats_server.all_acked(BREVO_SINK)
        await asyncio.to_thread(sink.end)

    by_name = {span.name: span for span in collector.spans}
    assert set(by_name) == {"brevo-sink send", "POST /events/batch"}
    send, post = by_name["brevo-sink send"], by_name["POST /events/batch"]
    assert (send.parent_span_id, len(send.links)) == (b"", 1)
    assert post.parent_span_id == send.span_id
    assert said(send)["tajo.command_id"] == track.id
    assert said(post)["http.response.status_code"] == 400
    assert {send.status.code, post.status.code} == {Status.STATUS_CODE_ERROR}
    assert b"meg@example.com" not in collector.bytes


async def test_a_collector_that_is_away_costs_one_line_in_the_log(nats_server, service):
    mapper = service("mapper", TAJO_NATS_URL=nats_server.url, OTEL_EXPORTER_OTLP_ENDPOINT="http://u:pw@127.0.0.1:9",
                     OTEL_BSP_SCHEDULE_DELAY="50", OTEL_EXPORTER_OTLP_TIMEOUT="1")  # fmt: skip
    await asyncio.to_thread(mapper.start, ready=True)
    for _ in range(3):
        await nats_server.say(*call(1.0))
        await nats_server.all_acked(MAPPER)
    began = time.monotonic()
    log = (await asyncio.to_thread(mapper.end)).decode()

    assert time.monotonic() - began < 10
    assert log.count("spans_not_sent") == 1
    assert "pw" not in log
    assert "Traceback" not in log


async def test_what_cannot_be_used_of_opentelemetrys_settings_is_said_at_the_start(service):
    mapper = service("mapper", OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_TRACES_SAMPLER_ARG="2")
    await asyncio.to_thread(mapper.start)

    said = (await asyncio.to_thread(mapper.ended)).decode()

    assert mapper.process.returncode == 78
    assert "OTEL_EXPORTER_OTLP_PROTOCOL has a value of the wrong kind: only http/protobuf is spoken" in said
    assert "OTEL_TRACES_SAMPLER_ARG has a value of the wrong kind" in said
