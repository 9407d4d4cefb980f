"""The comparison finds every difference, and nothing where there is none."""

import copy

import pytest

from sandbox.brevo import BrevoSandbox
from sandbox.expected import CONTACTS
from sandbox.verify import Sent, arrived, differences, latencies_ms, quantile


def perfect() -> dict:
    """A Brevo that holds exactly what is expected."""
    contacts, events = [], []
    for id_, contact in enumerate(CONTACTS, start=247):
        ext_id = {"EXT_ID": f"tajo-{id_}"}
        email = {"email": contact.email} if contact.email else {}
        contacts.append(
            {
                "id": id_,
                **email,
                "listIds": list(contact.lists),
                "attributes": {**contact.attributes, **ext_id},
            }
        )
        for date, name, task_sid in (event.key for event in contact.events):
            properties = {"task_sid": task_sid}
            events.append(
                {"contact_id": id_, "event_name": name, "event_date": date, "event_properties": properties,
                 "received_ms": 1_800_000_000_000}
            )  # fmt: skip
    return {"contacts": contacts, "events": events, "orphans": [], "requests": {}}


def test_what_was_expected_differs_in_nothing():
    assert differences(perfect(), CONTACTS) == []
    assert arrived(perfect(), CONTACTS) == sum(len(contact.events) for contact in CONTACTS)


def _event_lost(state):
    state["events"].pop()


def _event_twice(state):
    state["events"].append(state["events"][0])


def _event_of_another_contact(state):
    state["events"][0]["contact_id"] += 1


def _event_at_another_time(state):
    state["events"][0]["event_date"] = "2026-11-20T09:00:00.102Z"


def _attribute_too_many(state):
    state["contacts"][0]["attributes"]["LASTNAME"] = "López"


def _attribute_missing(state):
    del state["contacts"][0]["attributes"]["VIP_TIER"]


def _attribute_wrong(state):
    state["contacts"][0]["attributes"]["AVG_WAIT_TIME"] = 30


def _list_missing(state):
    state["contacts"][0]["listIds"].remove(33)


def _contact_missing(state):
    state["contacts"].pop()


def _contact_too_many(state):
    state["contacts"].append({"id": 9, "email": "x@example.com", "listIds": [], "attributes": {}})


def _ext_id_not_ours(state):
    state["contacts"][0]["attributes"]["EXT_ID"] = "crm-1"


def _orphan(state):
    state["orphans"].append({"name": "SUPPORT_REQUESTED"})


@pytest.mark.parametrize("spoil", [
    _event_lost, _event_twice, _event_of_another_contact, _event_at_another_time, _attribute_too_many,
    _attribute_missing, _attribute_wrong, _list_missing, _contact_missing, _contact_too_many, _ext_id_not_ours,
    _orphan,
])  # fmt: skip
def test_any_difference_is_found(spoil):
    state = copy.deepcopy(perfect())

    spoil(state)

    assert differences(state, CONTACTS)


def test_an_empty_brevo_lacks_everybody():
    assert len(differences(BrevoSandbox().state(), CONTACTS)) == len(CONTACTS)


def test_latency_counts_from_the_first_try():
    moment = 1_795_165_200_101  # 2026-11-20T09:00:00.101Z
    state = perfect()
    state["events"] = [{**state["events"][0], "received_ms": 2_000_000_000_250}]
    sent = [Sent(2_000_000_000_900, (moment,)), Sent(2_000_000_000_000, (1, moment))]

    assert latencies_ms(state, sent) == [250]


def test_what_brevo_had_before_has_no_latency():
    state = perfect()

    assert latencies_ms(state, [Sent(2_000_000_000_000, (1_795_165_200_101,))]) == []


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_quantile_is_the_nearest_rank(share, value):
    assert quantile(range(1, 101), share) == value
