"""Task attributes: who the customer is, and who is nobody."""

import pytest

from mapper.attributes import friendly_name, identifiers, identity, lookup, scalar

NOBODY = frozenset()


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"customers": {"email": " Ana@Example.COM "}}, {"email": "ana@example.com"}),
        ({"email": "a@b.example"}, {"email": "a@b.example"}),
        ({"pre_engagement_data": {"email": "a@b.example"}}, {"email": "a@b.example"}),
        ({"customerAddress": "a@b.example"}, {"email": "a@b.example"}),
        ({"customerAddress": "whatsapp:+15005550012"}, {"phone": "+15005550012"}),
        ({"customerAddress": "rcs:+15005550012"}, {"phone": "+15005550012"}),
        ({"from": "+15005550012", "to": "+15005550006", "direction": "inbound"}, {"phone": "+15005550012"}),
        ({"from": "+15005550006", "to": "+15005550012", "direction": "outbound"}, {"phone": "+15005550012"}),
        ({"from": "+15005550006", "outbound_to": "+15005550012", "direction": "outbound-api"}, {"phone": "+15005550012"}),
        ({"customers": {"external_id": 4711}}, {"external": "4711"}),
        ({"customers": {"phone": "+15005550012", "email": "a@b.example", "external_id": "x"}},
         {"email": "a@b.example", "external": "x", "phone": "+15005550012"}),
        # nobody:
        ({"from": "+266696687"}, {}),
        ({"from": "Anonymous"}, {}),
        ({"from": "client:ana"}, {}),
        ({"from": "sip:+15005550012@example.com"}, {}),
        ({"from": "client:+15005550012"}, {}),
        ({"customerAddress": "messenger:1234567890"}, {}),
        ({"from": "+15005550099"}, {}),
        ({"identity": "sam", "name": "Sam", "account_id": "7", "customerId": "FX1"}, {}),
        ({"email": "a@b..com"}, {}),
        ({"email": "<a@x.com>"}, {}),
        ({"email": "a\u200b@x.com"}, {}),
        ({"email": "a" * 300 + "@x.com"}, {}),
        ({"email": "not a mail", "customers": "nothing", "from": None, "customerAddress": ["x"]}, {}),
        ({}, {}),
    ],
)  # fmt: skip
def test_identifiers_are_found_where_flex_projects_put_them(attributes, found):
    assert identifiers(attributes, frozenset({"+15005550099"})) == found


def test_the_identity_is_as_flex_has_it():
    assert identity({"identity": "sam", "customerAddress": "whatsapp:+1"}) == "sam"
    assert identity({"customerAddress": "whatsapp:+15005550012"}) == "whatsapp:+15005550012"
    assert identity({"from": "+15005550012", "customerAddress": ""}) == "+15005550012"
    assert identity({"from": "Sam Lee", "customerId": "FX1"}) == "FX1"
    assert identity({"from": "+266696687"}) is None


def test_a_phone_number_is_no_name():
    assert friendly_name({"customers": {"name": "+1 (500) 555-0010"}, "name": "María"}) == "María"
    assert friendly_name({"name": "whatsapp:+15005550012"}) is None
    assert friendly_name({"customerName": "Ivo"}) == "Ivo"


def test_a_path_finds_nested_and_dotted_keys():
    assert lookup({"a": {"b": {"c": 1}}}, "a.b.c") == 1
    assert lookup({"a.b": 2}, "a.b") == 2
    assert lookup({"a": {"b.c": 3}}, "a.b.c") == 3
    assert lookup({"a": [1]}, "a.b") is None


def test_a_number_no_64_bits_hold_is_text_and_what_is_too_long_is_cut():
    assert scalar(2**64) == "18446744073709551616"
    assert scalar(-7) == -7
    assert scalar(10**5000) is None
    assert scalar("x" * 5000) == "x" * 1000
