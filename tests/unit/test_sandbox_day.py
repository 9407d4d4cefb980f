"""The day and what is expected of it hang together.  Nothing here uses the connector."""

import json
from collections import Counter
from datetime import datetime
from urllib.parse import parse_qsl

from sandbox.day import webhooks
from sandbox.expected import CONTACTS
from sandbox.task import at


def told() -> list[dict]:
    """Every TaskRouter event of the day, once, as {type, task_sid, ms, attributes}."""
    events = {}
    for webhook in webhooks():
        if webhook.route == "/webhooks/taskrouter":
            form = dict(parse_qsl(webhook.body.decode(), keep_blank_values=True))
            events[form["Sid"]] = {
                "type": form["EventType"],
                "task_sid": form.get("TaskSid"),
                "ms": int(form["TimestampMs"]),
                "attributes": json.loads(form.get("TaskAttributes", "{}")),
            }
        elif webhook.route == "/webhooks/event-streams":
            for event in json.loads(webhook.body):
                payload = event["data"]["payload"]
                events[payload["sid"]] = {
                    "type": payload["eventtype"],
                    "task_sid": payload["task_sid"],
                    "ms": round(datetime.fromisoformat(payload["timestamp"]).timestamp() * 1000),
                    "attributes": json.loads(payload["task_attributes"]),
                }
    return list(events.values())


def test_the_day_is_long_enough_to_show_something():
    day = webhooks()

    assert len(day) >= 60
    assert len(CONTACTS) >= 7
    assert len({webhook.route for webhook in day}) == 5
    assert {event["type"] for event in told()} >= {
        "task.created", "task-queue.entered", "reservation.accepted", "task.wrapup", "task.completed",
        "task.canceled", "task.transfer-completed", "worker.activity.update",
    }  # fmt: skip


def test_the_day_is_the_same_every_time():
    assert webhooks() == webhooks()


def test_some_webhooks_are_sent_again():
    assert max(Counter((webhook.route, webhook.body) for webhook in webhooks()).values()) >= 3


def test_what_is_expected_of_tasks_is_what_happened_to_them():
    names = {
        "task.created": "SUPPORT_REQUESTED",
        "task.completed": "SUPPORT_RESOLVED",
        "task.canceled": "SUPPORT_ABANDONED",
    }
    nobodys = {event["task_sid"] for event in told() if event["attributes"].get("from") == "+266696687"}
    happened = {
        (event["ms"], names[event["type"]], event["task_sid"])
        for event in told()
        if event["type"] in names and event["task_sid"] not in nobodys
    }

    expected = {
        (at(event.clock), event.name, event.key[2])
        for contact in CONTACTS
        for event in contact.events
        if event.name in names.values()
    }

    assert nobodys
    assert expected == happened


def test_every_expected_event_is_told_by_a_webhook_of_that_moment():
    moments = {moment for webhook in webhooks() for moment in webhook.moments}

    for contact in CONTACTS:
        for event in contact.events:
            assert at(event.clock) in moments, event


def test_expected_numbers_add_up():
    for contact in CONTACTS:
        names = Counter(event.name for event in contact.events)
        handled, abandoned = names["CONVERSATION_ENDED"], names["SUPPORT_ABANDONED"]
        assert contact.attributes["SUPPORT_TICKET_COUNT"] == handled + abandoned
        assert ("AVG_WAIT_TIME" in contact.attributes) == (handled > 0)
        assert ("CSAT_SCORE" in contact.attributes) == (names["CSAT_SUBMITTED"] == 1) == (33 in contact.lists)
        assert [event.clock for event in contact.events] == sorted(event.clock for event in contact.events)


def test_at_least_three_customers_come_on_two_channels():
    channels: dict[str, set[str]] = {}
    for event in told():
        attributes = event["attributes"]
        if event["type"] == "task.created":
            who = attributes.get("customers", {}).get("email") or attributes.get("from", "")
            channels.setdefault(who, set()).add(attributes.get("channelType", "voice"))
    by_email = sum(len(kinds) > 1 for kinds in channels.values())

    assert by_email >= 2  # Maria and Ravi; Ivo and Nina are known on the second by their phone
    assert {"+12025550103", "+12025550104"} <= channels.keys()
