"""What `tajo connectors test` makes of answers, and what is asked of Event Streams and the event callback."""

import pytest

from poller.answer import Absent
from poller.twilio import URLS
from sandbox.streams import DISCONTINUED, TYPES
from shared.connector_file import parse
from shared.verdict import Pause, Reject, Retry
from tajo import event_callback, event_streams, findings

AC, WS, OTHER = "AC" + "1" * 32, "WS" + "1" * 32, "WS" + "2" * 32
OURS = "https://hooks.example.com/webhooks/taskrouter#rc=5&rp=all"
SINK = {
    "sid": "DG1",
    "sink_type": "webhook",
    "status": "active",
    "sink_configuration": {"destination": "https://a"},
}


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://taskrouter.twilio.com", "us1"),
        ("https://taskrouter.dublin.ie1.twilio.com", "ie1"),
        ("https://flex-api.sydney.au1.twilio.com/", "au1"),
        ("http://127.0.0.1:8090/twilio/flex", ""),
        ("https://twilio.com.example.com", ""),
    ],
)
def test_an_address_tells_its_region(url, region):
    assert findings.region(url) == region


def test_addresses_of_several_regions_are_named_and_of_one_are_not():
    mixed = findings.of_regions({**URLS, "flex": "https://flex-api.dublin.ie1.twilio.com"})

    assert findings.of_regions(URLS) is None
    assert mixed is not None
    assert "flex ie1" in mixed.said


def test_refused_credentials_at_another_region_say_which():
    refused = Pause("401, Twilio error 20003", "copy both anew")

    assert "are of the region ie1" in findings.of_flex(refused, AC, "ie1").remedy
    assert findings.of_flex(refused, AC, "us1").remedy == "copy both anew"


@pytest.mark.parametrize(
    ("told", "by_flex", "answer", "status", "said"),
    [
        ("", WS, {"sid": WS}, "ok", "TaskRouter workspace found"),
        (WS, WS, {"sid": WS}, "ok", "found"),
        (OTHER, WS, None, "failed", f"this account has no workspace {OTHER}; Flex uses {WS}"),
        (OTHER, WS, {"sid": OTHER}, "warning", f"{OTHER} is read, and Flex uses {WS}"),
        ("", "", None, "failed", "Flex names none"),
        ("", WS, Retry("503", 1.0), "failed", "does not answer as it should (503)"),
        ("", WS, Pause("403", "may the key?"), "failed", "403"),
    ],
)
def test_a_workspace_that_is_not_flexs_is_named(told, by_flex, answer, status, said):
    found = findings.of_workspace(told, by_flex, answer)

    assert found.status == status
    assert said in found.said


def test_missing_conversations_are_told_apart():
    assert "Flex names no chat service" in findings.of_conversations("", None).said
    assert "there is no chat service IS1" in findings.of_conversations("IS1", None).said
    assert findings.of_conversations("IS1", []).said == "Conversations API accessible"
    assert findings.of_conversations("IS1", Reject("400")).status == "failed"
    assert findings.of_conversations("IS1", Absent("404")).status == "failed"


@pytest.mark.parametrize(
    ("age_s", "status", "said"),
    [
        (5.0, "ok", "the last one 5 seconds ago"),
        (7200.0, "ok", "the last one 2 hours ago"),
        (86401.0, "warning", "silent: the last one came 24 hours ago"),
        (3 * 86400.0, "warning", "3 days ago"),
        (None, "warning", "none of the last 200 raw events came by one"),
    ],
)
def test_silence_is_a_warning_after_a_day(age_s, status, said):
    found = findings.of_webhooks(age_s, 200)

    assert found.status == status
    assert said in found.said


@pytest.mark.parametrize(
    ("existing", "force", "state"),
    [
        ("", False, "set"),
        (OURS, False, "there"),
        (OURS, True, "there"),
        ("https://hooks.example.com/webhooks/taskrouter", False, "set"),
        ("https://crm.example.com/webhooks/taskrouter#rc=5&rp=all", False, "kept"),
        ("https://crm.example.com/webhooks/taskrouter", True, "set"),
    ],
)
def test_a_callback_is_set_where_none_or_ours_stands(existing, force, state):
    assert event_callback.judge(existing, OURS, force=force) == state


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/x", "https://a.example/x"),
        ("https://u:p@a.example:8443/x?k=v#f", "https://…@a.example:8443/x?…"),
        ("https://[bad", "a URL that cannot be read"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret_in_it(url, shown):
    assert event_callback.masked(url) == shown


def test_every_type_we_read_can_be_subscribed_to_in_the_version_we_read():
    everything = event_streams.wanted(parse("connectors: {twilio_flex: {message_bodies: true}}"))

    known = {name for name in TYPES if name not in DISCONTINUED}
    read_otherwise = {
        "com.twilio.taskrouter.workflow.rejected", "com.twilio.taskrouter.task-queue.created",
        "com.twilio.taskrouter.task-queue.deleted", *(name for name in known if ".user." in name or ".worker." in name),
    } - {"com.twilio.taskrouter.worker.activity.update"}  # fmt: skip
    assert set(everything) == known - read_otherwise
    assert {name: event_streams.version(name) for name in everything} == {
        name: TYPES[name][1] for name in everything
    }


def test_what_people_write_is_subscribed_to_only_where_it_is_asked_for():
    mapped = parse("event_mapping: {message.added: WROTE}")

    assert not any(".message." in name for name in event_streams.wanted(parse("{}")))
    assert "com.twilio.conversations.message.added" in event_streams.wanted(mapped)


@pytest.mark.parametrize(
    ("sink", "found"),
    [
        (SINK, "DG1"),
        ({**SINK, "sink_configuration": '{"destination": "https://a"}'}, "DG1"),
        ({**SINK, "status": "failed"}, ""),
        ({**SINK, "sink_type": "kinesis"}, ""),
        ({**SINK, "sink_configuration": {"destination": "https://b"}}, ""),
        ({**SINK, "sink_configuration": "no json"}, ""),
    ],
)
def test_our_sink_is_known_by_where_it_delivers(sink, found):
    assert event_streams.sink_to("https://a", [sink]) == found
