"""What Brevo's contact shall say of a customer."""

import msgspec
import pytest

from mapper.book import Book
from mapper.customer import Aggregates, Customer, contact, fit
from mapper.identity import Known, customer_id
from mapper.interaction import Dated, Seen
from shared.connector_file import parse

ANA = customer_id("email:a@b.example")


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


def test_one_list_for_all_and_for_who_answered_is_told_once():
    config = parse("connectors: {twilio_flex: {lists: {support_contacts: 1, csat_respondents: 1}}}")
    assert contact(Customer(ANA), Aggregates(score=5), {}, config).list_ids == (1,)


@pytest.mark.parametrize(
    ("value", "type_", "fitted"),
    [
        (12.0, "text", "12"), (12345.67, "text", "12345.67"), (1234567.5, "text", "1234567.5"), (1e300, "text", "1e+300"),
        ("12345678901234567890123", "float", 1.2345678901234568e22), (1e300, "float", 1e300), (9e15, "float", 9_000_000_000_000_000), (True, "text", "yes"), ("7.5", "float", 7.5), ("many", "float", None), ("nan", "float", None),
        ("1e999", "float", None), ("Yes", "boolean", True), (0, "boolean", False), ("perhaps", "boolean", None),
        ("2026-11-20T10:00:00Z", "date", "2026-11-20"), ("tomorrow", "date", None), (None, "text", None),
    ],
)  # fmt: skip
def test_a_value_that_its_attribute_cannot_take_is_left_out(value, type_, fitted):
    assert fit(value, type_) == fitted


@pytest.mark.parametrize("scores", [(1, 3), (3, 1)])
def test_of_two_surveys_in_one_millisecond_the_better_counts_whichever_was_heard_first(scores):
    book = Book(None)
    identifier = ("email:ana@example.com", "tajo-1", msgspec.msgpack.encode(Known(Seen(1, "a", 1, "a"))))
    book.connection.execute("INSERT INTO identifier VALUES (?, ?, ?)", identifier)
    for number, score in enumerate(scores):
        row = (f"WT{number}", identifier[0], "voice", 5, 1, 0, None, None, 0, score, 7, 0, b"")
        book.connection.execute(f"INSERT INTO interaction VALUES ({', '.join('?' * len(row))})", row)

    assert book.aggregates(["tajo-1"], ["voice"])["tajo-1"].score == 3
