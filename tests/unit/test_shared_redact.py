"""Redaction: card numbers and bodies go, everything known stays."""

import json

from hypothesis import assume, given
from hypothesis import strategies as some

from shared.redact import BODY, CARD, cards, is_card, pairs, value

VISA, AMEX, MASTER = "4111111111111111", "378282246310005", "5555555555554444"


def test_a_card_in_free_text_goes_however_it_is_written():
    told = value(
        {"note": f"card {VISA}, 4111 1111 1111 1111 and 3782-822463-10005 please 12"}, keep_bodies=True
    )

    assert told == {"note": f"card {CARD}, {CARD} and {CARD} please 12"}


def test_a_card_in_an_unknown_attribute_goes_as_text_and_as_a_number():
    attributes = json.dumps({"cc": int(MASTER), "deep": [{"x": VISA}], "from": "+15005550010"})

    told = dict(pairs([("TaskAttributes", attributes)], keep_bodies=True))

    assert json.loads(told["TaskAttributes"]) == {"cc": CARD, "deep": [{"x": CARD}], "from": "+15005550010"}


def test_bodies_go_unless_they_are_to_be_kept():
    form = [("Body", "hello"), ("MessageSid", "IM1")]

    assert list(pairs(form, keep_bodies=False)) == [("Body", BODY), ("MessageSid", "IM1")]
    assert pairs(form, keep_bodies=True) is form
    assert value({"data": {"MessageBody": "hi"}}, keep_bodies=False) == {"data": {"MessageBody": BODY}}


def test_a_card_in_a_kept_body_goes_all_the_same():
    assert dict(pairs([("Body", f"my card is {AMEX}")], keep_bodies=True)) == {"Body": f"my card is {CARD}"}


@given(some.integers(1_500_000_000_000, 2_000_000_000_000))
def test_a_millisecond_timestamp_is_never_touched(ms):
    for name in ("TimestampMs", "anything"):
        assert value({name: str(ms), "n": ms}, keep_bodies=False) == {name: str(ms), "n": ms}


@given(
    some.from_regex(r"\+[1-9]\d{6,14}", fullmatch=True),
    some.sampled_from(["from", "note", "customerAddress"]),
)
def test_a_phone_number_is_never_touched(phone, name):
    given_ = {name: f"whatsapp:{phone}"}

    assert value(given_, keep_bodies=False) is given_


@given(some.text("0123456789abcdef", min_size=32, max_size=32))
def test_a_sid_is_never_touched(hexes):
    given_ = {"call_sid": f"CA{hexes}", "TaskSid": f"WT{hexes}", "conversationSid": hexes}

    assert value(given_, keep_bodies=False) is given_


def test_a_card_in_the_digits_of_another_script_goes_also_where_json_escapes_them():
    wide = "".join(chr(0xFF10 + int(digit)) for digit in VISA)
    mixed = f"4{wide[1:]}"

    told = dict(
        pairs([("TaskAttributes", json.dumps({"a": wide})), ("note", f"é {mixed}")], keep_bodies=True)
    )

    assert json.loads(told["TaskAttributes"]) == {"a": CARD}
    assert told["note"] == f"é {CARD}"


def test_an_escape_in_the_name_of_a_body_hides_nothing():
    told = dict(pairs([("Attributes", '{"\\u0042ody": "hello"}')], keep_bodies=False))

    assert json.loads(told["Attributes"]) == {"Body": BODY}


@given(
    some.text("0123456789", min_size=12, max_size=18), some.sampled_from(["4", "51", "34", "6011", "2221"])
)
def test_every_card_number_in_an_unknown_attribute_goes(digits, prefix):
    body = (prefix + digits)[:18]
    card = next(body + str(check) for check in range(10) if is_card(body + str(check)))
    assume(13 <= len(card) <= 19)

    assert value({"memo": f"x {card} y"}, keep_bodies=False) == {"memo": f"x {CARD} y"}


def test_what_is_clean_comes_back_as_the_same_object():
    given_ = {"a": [1, {"b": "text of some length"}], "c": None, "d": 1.5, "e": True}

    assert value(given_, keep_bodies=False) is given_


def test_a_long_run_of_digits_takes_no_time_and_each_card_in_it_is_found():
    assert cards("1 " * 100_000) == "1 " * 100_000
    assert cards("4111111111111111 " * 5_000) == f"{CARD} " * 5_000
    assert cards("4111 1111 1111 1111-4111111111111111") == f"{CARD}-{CARD}"
