"""What may go by import, how much at once, and what its files tell."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from brevo_sink import bulk
from brevo_sink.request import fingerprint, same_email
from shared.command import ContactUpsert


def upsert(number: int = 1, **more) -> ContactUpsert:
    usual = {
        "email": f"c{number}@example.com",
        "list_ids": (32,),
        "attributes": {"COUNT": 1, "SMS": "+12025550147"},
    }
    return ContactUpsert(
        id=f"u{number}", ext_id=f"tajo-{number}", version=1, mapping="m", **{**usual, **more}
    )


@pytest.mark.parametrize(
    ("more", "may"),
    [
        ({}, True),
        ({"email": None}, False),
        ({"list_ids": ()}, False),
        ({"attributes": {"VIP": False}}, False),
        ({"attributes": {"VIP": True, "COUNT": 0}}, True),
    ],
)
def test_only_a_row_that_can_neither_merge_nor_lose_anything_goes_by_import(more, may):
    one = upsert(**more)

    assert bulk.importable(one, fingerprint(one)) == may
    assert not bulk.importable(one, "")
    assert not bulk.importable(one, fingerprint(upsert(2)))


def test_a_new_contact_goes_with_its_phone_where_it_can_merge_with_nobody():
    one = upsert()

    assert bulk.importable(one, "", new=True)
    assert not bulk.importable(upsert(email=None), "", new=True)
    assert not bulk.importable(upsert(attributes={"VIP": False}), "", new=True)
    rows = bulk.body([one, upsert(2)], new={"tajo-1"})["jsonBody"]
    assert [row["attributes"].get("SMS") for row in rows] == ["+12025550147", None]


@pytest.mark.parametrize(("held", "is_held"), [("12025550147", True), ("12025550148", False), (None, False)])
def test_a_phone_that_was_imported_is_looked_for(held, is_held):
    shown = msgspec.json.encode({"attributes": {"COUNT": 1, "SMS": held}})

    assert bulk.holds(shown, upsert().attributes) == is_held


def test_another_phone_is_another_fingerprint():
    assert fingerprint(upsert()) != fingerprint(upsert(attributes={"SMS": "+12025550148"}))
    assert fingerprint(upsert()) == fingerprint(upsert(attributes={"SMS": "+12025550147", "COUNT": 5}))


def test_an_email_is_the_same_whatever_became_of_the_phone():
    whole, without = fingerprint(upsert()), fingerprint(upsert(), {"SMS"})

    assert whole != without
    assert same_email(whole, without)
    assert not same_email(whole, fingerprint(upsert(), {"email"}))
    assert not same_email(whole, fingerprint(upsert(2)))
    assert not same_email("", fingerprint(upsert(email=None)))


def test_an_import_takes_8_mb_and_no_more():
    large = [upsert(number, attributes={"NOTE": "x" * 50_000}) for number in range(300)]

    count = bulk.fitting(large)

    assert 7.5 < len(msgspec.json.encode(bulk.body(large[:count]))) / 1024**2 <= 8.01
    assert bulk.fitting(large[:10]) == 10


def test_the_files_tell_of_whom_by_mail_or_name_however_they_are_written():
    some_ = [upsert(number) for number in range(5)]
    files = [
        b"\xef\xbb\xbfEMAIL;EXT_ID\nC1@example.com;\n",
        b'"Row","Name"\n"7","tajo-3"\n',
        b"\xff\xfe",
        b"",
    ]

    assert bulk.refused(some_, files) == {"tajo-1", "tajo-3"}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b'{"status":"queued"}', bulk.Process("waits")),
        (b"oh", bulk.Process("waits")),
        (b'{"status":"cancelled"}', bulk.Process("failed")),
        (b'{"status":"completed"}', bulk.Process("completed")),
        (b'{"status":"completed","info":{"import":{"a":"https://x/a.csv","b":null}}}', bulk.Process("completed", ("https://x/a.csv",))),
    ],
)  # fmt: skip
def test_how_far_an_import_is(answer, found):
    assert bulk.process(answer) == found


@given(some.binary(max_size=50))
def test_no_answer_and_no_file_makes_it_raise(said):
    bulk.process(said)
    bulk.process_id(said)
    bulk.refused([upsert()], [said])
    bulk.holds(said, {"COUNT": 1})


def test_a_contact_is_compared_as_brevo_shows_it():
    shown = b'{"attributes":{"COUNT":7.0,"DAY":"2026-11-20T00:00:00.000Z","VIP":true,"NAME":"Meg"}}'

    assert bulk.holds(shown, {"COUNT": 7, "DAY": "2026-11-20", "VIP": True, "NAME": "Meg"})
    assert not bulk.holds(shown, {"COUNT": 8})
    assert not bulk.holds(shown, {"NAME": "Mag"})
