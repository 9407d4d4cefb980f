"""The local Brevo where no fixture speaks: identity, silent drops, limits, batches, paging."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sandbox.brevo import BrevoSandbox
from sandbox.http import Answer, Asked
from sandbox.limits import UNLIMITED, Limits, Meter


def call(brevo: BrevoSandbox, method: str, path: str, body: object = None, **query: object) -> Answer:
    several = {name: value if isinstance(value, list) else [str(value)] for name, value in query.items()}
    raw = b"" if body is None else json.dumps(body).encode()
    return brevo.answer(Asked(method, path, several, raw), {"api-key": brevo.api_key})


@pytest.fixture
def brevo() -> BrevoSandbox:
    return BrevoSandbox(limits=UNLIMITED)


def upsert(brevo: BrevoSandbox, **body: object) -> Answer:
    return call(brevo, "POST", "/contacts", {"updateEnabled": True, **body})


def event(name: str = "A", ext_id: str = "tajo-1", **more: object) -> dict:
    return {"event_name": name, "identifiers": {"ext_id": ext_id}, **more}


def test_a_new_account_has_the_lists_of_our_configuration_and_three_attributes(brevo):
    names = [one["name"] for one in call(brevo, "GET", "/contacts/attributes").body["attributes"]]

    assert names == ["FIRSTNAME", "LASTNAME", "SMS"]
    assert [call(brevo, "GET", f"/contacts/lists/{id_}").status for id_ in (32, 33, 34)] == [200, 200, 404]


def test_unknown_attributes_and_wrong_types_are_dropped_in_silence(brevo):
    for name, type_ in (("COUNT", "float"), ("DAY", "date"), ("VIP", "boolean")):
        call(brevo, "POST", f"/contacts/attributes/normal/{name}", {"type": type_})
    good = {"FIRSTNAME": "Meg", "COUNT": 7, "DAY": "2026-11-20", "VIP": False}
    bad = {"FIRSTNAME": 7, "COUNT": "7", "DAY": "20.11.2026", "VIP": "no", "Nom": "Meg", "NONE": 1}

    assert upsert(brevo, email="good@example.com", attributes=good).status == 201
    assert upsert(brevo, email="bad@example.com", attributes=bad).status == 201

    assert brevo.contact(email_id="good@example.com").attributes == good
    assert brevo.contact(email_id="bad@example.com").attributes == {}


@pytest.mark.parametrize("phone", ["+12025550147", "0012025550147", "12025550147"])
def test_a_phone_is_one_however_it_is_written(brevo, phone):
    upsert(brevo, ext_id="tajo-1", attributes={"SMS": "+12025550147"})

    assert upsert(brevo, attributes={"SMS": phone}).status == 204
    assert brevo.contact(phone_id=phone).ext_id == "tajo-1"


def test_a_second_identifier_of_somebody_else_is_refused_although_updates_are_enabled(brevo):
    upsert(brevo, ext_id="tajo-1", email="a@example.com", attributes={"SMS": "+12025550147"})

    created = upsert(brevo, ext_id="tajo-2", email="b@example.com", attributes={"SMS": "+12025550147"})
    without = upsert(brevo, ext_id="tajo-2", email="b@example.com")
    updated = upsert(brevo, ext_id="tajo-1", email="b@example.com", attributes={"SMS": "+12025550147"})

    assert (created.status, without.status, updated.status) == (400, 201, 400)
    assert created.body["metadata"] == {"duplicate_identifiers": ["SMS"]}
    assert updated.body["metadata"] == {"duplicate_identifiers": ["EXT_ID", "SMS"]}
    assert len(brevo.contacts.by_id) == 2


def test_a_contact_known_by_ext_id_gets_its_email_later(brevo):
    upsert(brevo, ext_id="tajo-1", attributes={"SMS": "+12025550147"})

    assert upsert(brevo, ext_id="tajo-1", email="a@example.com").status == 204
    assert brevo.contact(email_id="a@example.com").identifier("SMS") == "12025550147"


@pytest.mark.parametrize(("first", "loser"), [("email", "EXT_ID"), ("EXT_ID", "email")])
def test_which_identifier_wins_can_be_chosen_as_nobody_documents_it(brevo, first, loser):
    brevo.contacts.first = first
    upsert(brevo, ext_id="tajo-1")
    upsert(brevo, email="b@example.com")

    answer = upsert(brevo, ext_id="tajo-1", email="b@example.com")

    assert answer.body["metadata"] == {"duplicate_identifiers": [loser]}


def test_an_identifier_given_up_is_free_again(brevo):
    upsert(brevo, ext_id="tajo-1", email="old@example.com")
    upsert(brevo, ext_id="tajo-1", email="new@example.com")

    assert brevo.contact(email_id="old@example.com") is None
    assert upsert(brevo, email="old@example.com").status == 201
    assert call(brevo, "DELETE", "/contacts/new@example.com").status == 204
    assert upsert(brevo, email="new@example.com").status == 201


def test_another_email_takes_a_contact_off_the_blocklist(brevo):
    upsert(brevo, ext_id="tajo-1", email="old@example.com", emailBlacklisted=True)
    upsert(brevo, ext_id="tajo-1", email="old@example.com")
    assert call(brevo, "GET", "/contacts/old@example.com").body["emailBlacklisted"]

    upsert(brevo, ext_id="tajo-1", email="new@example.com")

    assert not call(brevo, "GET", "/contacts/new@example.com").body["emailBlacklisted"]


def test_lists_are_added_by_upserts_and_taken_away_by_updates(brevo):
    upsert(brevo, ext_id="tajo-1", listIds=[32])
    upsert(brevo, ext_id="tajo-1", listIds=[33])
    assert brevo.contact(ext_id="tajo-1").list_ids == {32, 33}

    call(brevo, "PUT", "/contacts/tajo-1", {"unlinkListIds": [33]}, identifierType="ext_id")

    assert brevo.contact(ext_id="tajo-1").list_ids == {32}
    assert upsert(brevo, ext_id="tajo-1", listIds=[99]).status == 400


def test_contacts_are_paged_by_creation(brevo):
    for number in range(5):
        upsert(brevo, ext_id=f"tajo-{number}")

    page = call(brevo, "GET", "/contacts", limit=2, offset=1, sort="asc").body

    assert [contact["id"] for contact in page["contacts"]] == [248, 249]
    assert page["count"] == 5
    assert call(brevo, "GET", "/contacts", limit=1001).status == 400


def test_an_event_of_nobody_is_kept_apart_and_creates_no_contact(brevo):
    assert call(brevo, "POST", "/events/batch", {"events": [event()]}).status == 202

    assert (brevo.events, [one.name for one in brevo.orphans]) == ([], ["A"])
    assert brevo.state()["contacts"] == []


def test_a_batch_is_bounded_in_number_and_in_bytes(brevo):
    upsert(brevo, ext_id="tajo-1")

    assert call(brevo, "POST", "/events/batch", {"events": [event()] * 200}).status == 202
    assert call(brevo, "POST", "/events/batch", {"events": [event()] * 201}).status == 400
    large = {"events": [event(event_properties={"x": "y" * 40_000})] * 14}
    assert call(brevo, "POST", "/events/batch", large).status == 400
    assert len(brevo.events) == 200


@pytest.mark.parametrize("wrong", [
    {"event_name": "a b"}, {"event_name": "a" * 256}, {"event_name": ""}, {"event_date": "yesterday"},
    {"identifiers": {}}, {"identifiers": {"name": "Meg"}}, {"event_properties": {"a b": 1}},
    {"event_properties": {"a": 1.5}}, {"event_properties": {"a": True}}, {"event_properties": {"a": None}},
    {"event_properties": {"a": "x" * 51_201}}, {"event_properties": []},
])  # fmt: skip
def test_only_the_bad_event_of_a_batch_is_refused(brevo, wrong):
    upsert(brevo, ext_id="tajo-1")

    answer = call(
        brevo, "POST", "/events/batch", {"events": [event("A"), {**event("B"), **wrong}, event("C")]}
    )

    assert answer.status == 207
    assert [error["eventIndex"] for error in answer.body["errors"]] == [[1]]
    assert (answer.body["total_events"], answer.body["successful_events"], answer.body["failed_events"]) == (
        3,
        2,
        1,
    )
    assert [one.name for one in brevo.events] == ["A", "C"]


def test_a_single_event_may_hold_a_boolean_but_no_float(brevo):
    assert call(brevo, "POST", "/events", event(event_properties={"a": True})).status == 204
    assert call(brevo, "POST", "/events", event(event_properties={"a": 0.5})).status == 400


def test_contact_properties_of_an_event_write_attributes(brevo):
    upsert(brevo, ext_id="tajo-1", attributes={"FIRSTNAME": "New"})

    call(brevo, "POST", "/events", event(contact_properties={"FIRSTNAME": "Old"}))

    assert brevo.contact(ext_id="tajo-1").attributes == {"FIRSTNAME": "Old"}


def test_events_are_found_by_name_contact_and_date_newest_first(brevo):
    upsert(brevo, ext_id="tajo-1")
    upsert(brevo, ext_id="tajo-2")
    for name, ext_id, day in (
        ("A", "tajo-1", 18),
        ("B", "tajo-1", 19),
        ("A", "tajo-2", 20),
        ("C", "tajo-1", 21),
    ):
        date = f"2026-11-{day}T10:00:00.000Z"
        call(brevo, "POST", "/events", event(name, ext_id, event_date=date))

    def found(**query: object) -> list[str]:
        events = call(brevo, "GET", "/events", **query).body["events"]
        return [f"{one['event_name']}{one['contact_id']}@{one['event_date'][8:10]}" for one in events]

    dates = {"startDate": "2026-11-01", "endDate": "2026-11-30"}
    assert found(**dates) == ["C247@21", "A248@20", "B247@19", "A247@18"]
    assert found(**dates, event_name=["A", "B"]) == ["A248@20", "B247@19", "A247@18"]
    assert found(**dates, contact_id=247, limit=1, offset=1) == ["B247@19"]
    assert found(startDate="2026-11-19", endDate="2026-11-20") == ["A248@20", "B247@19"]
    exact = "2026-11-19T10:00:00.000Z"
    assert found(startDate=exact, endDate=exact) == ["B247@19"]
    assert call(brevo, "GET", "/events", startDate="2026-11-19").status == 400


def test_events_are_seen_only_after_the_delay_asked_for():
    now = [1_800_000_000.0]
    brevo = BrevoSandbox(limits=UNLIMITED, clock=lambda: now[0])
    brevo.event_log.visible_after_s = 5
    upsert(brevo, ext_id="tajo-1")
    call(brevo, "POST", "/events", event())
    assert call(brevo, "GET", "/events").body["count"] == 0

    now[0] += 5

    assert call(brevo, "GET", "/events").body["count"] == 1


def test_each_bucket_has_its_own_limit():
    brevo = BrevoSandbox(clock=lambda: 1_800_000_000.0)

    contacts = [call(brevo, "GET", "/contacts").status for _ in range(11)]
    events = [call(brevo, "POST", "/events/batch", {"events": [event()]}).status for _ in range(11)]
    others = [call(brevo, "GET", "/account").status for _ in range(101)]

    assert contacts == [200] * 10 + [429]
    assert events == [202] * 10 + [429]
    assert others == [200] * 100 + [429]


def test_the_hours_can_be_scaled_and_the_seconds_stay():
    assert Limits().scaled(100) == Limits(10, 3_600_000, 10, 3_600_000, 10_000)
    assert Limits(other_per_h=None).scaled(100).other_per_h is None


@given(some.lists(some.floats(0, 3), min_size=1, max_size=80), some.integers(1, 5), some.integers(1, 20))
def test_no_window_lets_more_through_than_its_limit(pauses, per_s, per_h):
    meter = Meter(Limits(contacts_per_s=per_s, contacts_per_h=per_h))
    now, let_through, windows = 1_800_000_000.0, 0, {}
    for pause in pauses:
        now += pause
        allowed, headers = meter.count("contacts", now)
        assert int(headers["x-sib-ratelimit-remaining"]) >= 0
        assert allowed or headers["x-sib-ratelimit-remaining"] == "0"
        let_through += allowed
        windows[now] = windows.get(now, 0) + allowed

    assert let_through <= per_h
    assert max(windows.values()) <= per_s


def test_the_window_opens_again_when_it_says():
    meter = Meter(Limits(contacts_per_s=1))
    assert meter.count("contacts", 1000.0)[0]

    allowed, headers = meter.count("contacts", 1000.5)

    assert not allowed
    assert meter.count("contacts", 1000.5 + float(headers["x-sib-ratelimit-reset"]))[0]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff"])
def test_a_body_that_is_no_object_is_refused(brevo, body):
    for path in ("/contacts", "/events", "/events/batch"):
        answer = brevo.answer(Asked("POST", path, {}, body), {"api-key": brevo.api_key})
        assert answer.status == 400


def test_an_import_writes_rows_one_process_after_the_other_and_false_overwrites_nothing(brevo):
    now = [1_800_000_000.0]
    brevo.clock = lambda: now[0]
    brevo.imports.takes_s = 30
    call(brevo, "POST", "/contacts/attributes/normal/VIP", {"type": "boolean"})
    upsert(brevo, ext_id="tajo-1", email="a@example.com", attributes={"VIP": True, "FIRSTNAME": "Meg"})
    rows = [
        {
            "email": "a@example.com",
            "attributes": {"EXT_ID": "tajo-1", "VIP": False, "FIRSTNAME": "Mag", "NONE": 1},
        },
        {"email": "no mail", "attributes": {}},
    ]

    ids = [
        call(brevo, "POST", "/contacts/import", {"jsonBody": rows, "listIds": [32]}).body["processId"]
        for _ in range(2)
    ]
    now[0] += 30

    assert [call(brevo, "GET", f"/processes/{id_}").body["status"] for id_ in ids] == [
        "completed",
        "in_process",
    ]
    assert brevo.contact(ext_id="tajo-1").attributes == {"VIP": True, "FIRSTNAME": "Mag"}
    assert brevo.contact(ext_id="tajo-1").list_ids == {32}
    assert brevo.imports.file(str(ids[0]), "invalid_emails").body == "EMAIL;EXT_ID\nno mail;\n"
