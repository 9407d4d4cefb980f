"""The envelope of a raw event: there and back, and what cannot break a subject."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from shared.event import PRODUCTS, RawEvent, epoch_ms, from_message, rfc3339, shard, to_message
from shared.trace import follow, start

sids = some.text("ACWT0123456789abcdef", min_size=1, max_size=34)


@given(
    some.builds(
        RawEvent,
        id=some.text(some.characters(codec="ascii", categories=["L", "N"]), min_size=1),
        product=some.sampled_from(PRODUCTS),
        type=some.sampled_from(["task.completed", "worker.channel.availability.update"]),
        source=some.sampled_from(["/webhooks/taskrouter", "/rest/taskrouter/events"]),
        subject=sids,
        account_sid=sids,
        time_ms=some.integers(0, 4_000_000_000_000),
        content_type=some.just("application/json"),
        body=some.binary(max_size=50),
    )
)
def test_an_event_comes_back_from_its_message_as_it_was(event):
    message = to_message(event, start())

    assert from_message(message.subject, message.headers, message.body) == event
    assert message.headers["Nats-Msg-Id"] == event.id


@given(some.text(max_size=40), some.text(max_size=20))
def test_no_type_or_account_can_break_a_subject(type_, account):
    event = RawEvent(
        id="EV1",
        product="flex",
        type=type_,
        source="/",
        subject="WT1",
        account_sid=account,
        time_ms=0,
        content_type="",
        body=b"",
    )

    tokens = to_message(event, start()).subject.split(".")

    assert tokens[0] == "twilio"
    assert all(token and not set(token) & set(" *>\r\n\t") for token in tokens)


@given(some.integers(0, 4_000_000_000_000))
def test_a_time_keeps_its_milliseconds(time_ms):
    assert epoch_ms(rfc3339(time_ms)) == time_ms


def test_the_same_sid_is_always_in_the_same_one_of_64_shards():
    shards = {shard(f"WT{number:032x}") for number in range(5000)}

    assert shards == {f"{number:02d}" for number in range(64)}


@pytest.mark.parametrize(
    ("subject", "headers"),
    [
        ("twilio.AC1", {}),
        ("twilio.AC1.01.flex.x", {"ce-type": "com.twilio.taskrouter.x"}),
        ("twilio.AC1.01.flex.x", {"ce-type": "com.twilio.flex.x", "ce-id": "1", "ce-source": "/", "ce-subject": "WT", "ce-time": "now"}),
    ],
)  # fmt: skip
def test_a_broken_envelope_is_a_value_error(subject, headers):
    with pytest.raises(ValueError, match=r".+"):
        from_message(subject, headers, b"")


def test_what_follows_is_in_the_same_trace_and_what_follows_nothing_starts_one():
    first = start()

    assert follow(first).split("-")[1] == first.split("-")[1]
    assert follow(first) != first
    assert len(follow("garbage").split("-")[1]) == 32
