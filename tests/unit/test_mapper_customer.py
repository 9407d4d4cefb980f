"""Whose an interaction is, and what Brevo's contact shall say."""

import pytest

from mapper.customer import Aggregates, Customer, Owner, contact, customer_id, decide, fit, own
from mapper.interaction import Dated, Seen
from shared.config import parse

MAIL, OTHER, PHONE, EXTERNAL = "email:a@b.example", "email:c@d.example", "phone:+15005550010", "external:7"
ANA = customer_id(MAIL)


def seen(*keys: str) -> dict[str, Seen]:
    return {key: Seen(1, "EV1", 1, "EV1") for key in keys}


def test_a_new_customer_is_named_by_the_earliest_identifier_and_mail_goes_before_phone():
    assert decide(seen(PHONE, MAIL), {}, {}) == ANA
    assert decide({MAIL: Seen(5, "EV5", 5, "EV5"), PHONE: Seen(1, "EV1", 1, "EV1")}, {}, {}) == customer_id(
        PHONE
    )
    assert decide({}, {}, {}) == ""


def test_a_phone_says_who_called_only_where_no_mail_does():
    owners = {PHONE: Owner("tajo-bob"), MAIL: Owner(ANA)}
    customers = {"tajo-bob": Customer("tajo-bob", seen(OTHER, PHONE)), ANA: Customer(ANA, seen(MAIL))}

    assert decide(seen(PHONE), owners, customers) == "tajo-bob"
    assert decide(seen(PHONE, MAIL), owners, customers) == ANA


def test_a_customer_known_by_phone_takes_the_mail_that_comes_with_it():
    phone_only = Customer(customer_id(PHONE), seen(PHONE))
    owners = {PHONE: Owner(phone_only.id)}
    customers = {phone_only.id: phone_only}

    owner = decide(seen(PHONE, MAIL), owners, customers)
    own(phone_only, seen(PHONE, MAIL), owners, customers)

    assert owner == phone_only.id
    assert owners[MAIL] == Owner(phone_only.id)


def test_a_phone_seen_with_two_mails_is_shared_and_nobodys_sms():
    ana, bob = Customer(ANA, seen(MAIL, PHONE)), Customer(customer_id(OTHER))
    owners = {MAIL: Owner(ANA), PHONE: Owner(ANA)}
    customers = {ana.id: ana, bob.id: bob}

    own(bob, seen(OTHER, PHONE), owners, customers)

    assert owners[PHONE] == Owner(customer_id(PHONE), shared=True)
    config = parse("field_mapping: {attributes.phone: SMS, attributes.email: email}")
    assert contact(ana, Aggregates(), owners, config).attributes == {}
    assert contact(bob, Aggregates(), owners, config).email == "c@d.example"
    assert decide(seen(PHONE), owners, customers) == customer_id(PHONE)


def test_the_aggregates_are_told_as_defined():
    config = parse(
        "connectors: {twilio_flex: {lists: {support_contacts: 1, csat_respondents: 2}, time_zone: Asia/Tokyo}}\n"
        "field_mapping: {avg_wait_time: W, avg_handle_time: H, preferred_channel: P, last_conversation_date: D,"
        " total_conversations: T, last_csat_score: S, tier: X}"
    )
    aggregates = Aggregates(
        per_channel={"voice": (2, 100), "sms": (2, 200), "webchat": (1, 900)},
        total=5, wait_ms=(2500, 1), handle_ms=(4999, 10), last_ms=1_763_650_800_000, first_ms=1, score=4.5,
    )  # fmt: skip
    customer = Customer(ANA, fields={"tier": Dated(1, "EV1", "gold")})

    told = contact(customer, aggregates, {}, config)

    assert told.attributes == {"W": 3, "H": 0, "P": "sms", "D": "2025-11-21", "T": 5, "S": 4.5, "X": "gold"}
    assert told.list_ids == (1, 2)
    assert contact(customer, Aggregates(), {}, config).list_ids == (1,)


@pytest.mark.parametrize(
    ("value", "type_", "fitted"),
    [
        (12.0, "text", "12"), (True, "text", "yes"), ("7.5", "float", 7.5), ("many", "float", None), ("nan", "float", None),
        ("1e999", "float", None), ("Yes", "boolean", True), (0, "boolean", False), ("perhaps", "boolean", None),
        ("2026-11-20T10:00:00Z", "date", "2026-11-20"), ("tomorrow", "date", None), (None, "text", None),
    ],
)  # fmt: skip
def test_a_value_that_its_attribute_cannot_take_is_left_out(value, type_, fitted):
    assert fit(value, type_) == fitted
