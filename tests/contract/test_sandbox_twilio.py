"""What the sandbox sends is what Twilio would: signatures by the official package, fields by the fixtures."""

import json
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as some
from twilio.request_validator import RequestValidator

from sandbox.day import webhooks
from sandbox.flex import voice
from sandbox.task import Task
from sandbox.twilio import FORM, rest_event, sign, signed

DATA = Path(__file__).parents[1] / "data/twilio"
URL, TOKEN = "https://flex.example.com/tajo", "0123456789abcdef0123456789abcdef"

TEXT = some.text(some.characters(exclude_categories=["Cs"]), max_size=20)


class Several(dict):
    """Every value of a repeated parameter, as web frameworks hand them to the official package."""

    def getall(self, name: str) -> list[str]:
        return self[name]


def form_of(webhook) -> dict[str, str]:
    return dict(parse_qsl(webhook.body.decode(), keep_blank_values=True))


def fixture_form(path: Path) -> dict[str, str]:
    return dict(parse_qsl(path.read_text(), keep_blank_values=True))


def test_each_webhook_of_the_day_is_signed_as_twilio_signs():
    official = RequestValidator(TOKEN)

    for webhook in webhooks():
        path, headers = signed(webhook, URL, TOKEN)
        body = form_of(webhook) if webhook.content_type == FORM else webhook.body.decode()
        assert official.validate(URL + path, body, headers["x-twilio-signature"]), webhook.route


@given(some.lists(some.tuples(TEXT, TEXT), max_size=8))
def test_signature_is_the_official_one_for_any_form(pairs):
    several = Several()
    for name, value in pairs:
        several.setdefault(name, []).append(value)

    assert sign(URL, TOKEN, pairs) == RequestValidator(TOKEN).compute_signature(URL, several)


def test_another_body_has_another_signature():
    webhook = webhooks()[0]
    _, headers = signed(webhook, URL, TOKEN)

    altered = {**form_of(webhook), "WorkerActivityName": "Offline"}

    assert not RequestValidator(TOKEN).validate(URL + webhook.route, altered, headers["x-twilio-signature"])


def known_callback_fields() -> dict[str, set[str]]:
    """Resource type → the fields that the fixtures have, with those that come with a transfer."""
    known: dict[str, set[str]] = {}
    for path in (DATA / "taskrouter").glob("*.form"):
        form = fixture_form(path)
        known.setdefault(form["ResourceType"], set()).update(form)
    known["task"] |= {
        "TransferMode", "TransferType", "TransferTo", "TransferStatus", "TransferInitiatingWorkerSid",
        "TransferInitiatingReservationSid", "TaskTransferSid",
    }  # fmt: skip
    return known


def test_callbacks_have_the_fields_of_the_fixtures():
    known = known_callback_fields()

    for webhook in webhooks():
        if webhook.route == "/webhooks/taskrouter":
            form = form_of(webhook)
            assert set(form) <= known[form["ResourceType"]], form["EventType"]


def test_stream_elements_have_the_fields_of_the_fixtures():
    batch = json.loads((DATA / "eventstreams/batch.json").read_bytes())
    envelope, data = set(batch[0]), set(batch[0]["data"])
    payload = {key for event in batch for key in event["data"].get("payload", {})} | {
        "transfer_mode", "transfer_type", "transfer_to", "transfer_status", "transfer_initiating_worker_sid",
        "transfer_initiating_reservation_sid", "task_transfer_sid",
    }  # fmt: skip

    streamed = [e for w in webhooks() if w.route == "/webhooks/event-streams" for e in json.loads(w.body)]

    assert len(streamed) > 20
    for event in streamed:
        assert (set(event), set(event["data"])) == (envelope, data)
        assert set(event["data"]["payload"]) <= payload


@pytest.mark.parametrize(("route", "folder"), [("/webhooks/conversations", "conversations"),
                                               ("/webhooks/interactions", "interactions")])  # fmt: skip
def test_conversation_and_interaction_callbacks_have_the_fields_of_the_fixtures(route, folder):
    known: dict[str, set[str]] = {}
    for path in (DATA / folder).glob("*.form"):
        form = fixture_form(path)
        known.setdefault(form["EventType"], set()).update(form)

    sent = [form_of(webhook) for webhook in webhooks() if webhook.route == route]

    assert len({form["EventType"] for form in sent}) >= 3
    for form in sent:
        assert set(form) <= known[form["EventType"]] | {"InstanceSid", "ChannelSid"}, form["EventType"]


def test_an_event_has_one_sid_in_callback_and_stream():
    in_callbacks = {
        form["Sid"]: (form["EventType"], form["ResourceSid"], form["TimestampMs"])
        for webhook in webhooks()
        if webhook.route == "/webhooks/taskrouter" and (form := form_of(webhook))
    }
    streamed = [
        event["data"]["payload"]
        for webhook in webhooks()
        if webhook.route == "/webhooks/event-streams"
        for event in json.loads(webhook.body)
    ]

    both = [payload for payload in streamed if payload["sid"] in in_callbacks]

    assert len(both) >= 10
    for payload in both:
        assert in_callbacks[payload["sid"]][:2] == (payload["eventtype"], payload["resource_sid"])


def test_an_event_read_over_rest_has_the_fields_of_the_fixtures():
    page = json.loads((DATA / "rest/taskrouter.events.page1.json").read_text())["events"]
    task = next(one for one in page if one["event_type"] == "task.canceled")
    sent = Task("t", "voice", "Support Voice", voice("+15005550011", "c"))
    sent.created("10:00:00.000")

    shown = rest_event(sent.canceled("10:01:00.000")[0])

    assert shown.keys() == task.keys()
    assert task["event_data"].keys() <= shown["event_data"].keys() | {"task_canceled_reason"}
    assert all(isinstance(value, str) for value in shown["event_data"].values())
