"""Tombstones: whose something is, and until when."""

from brevo_sink.remains import Remains, of_receipts
from shared.receipt import Receipt
from shared.tombstone import Tombstones, names_in, theirs, tombstone

KEY = b"k" * 32
TASK, OTHER = "WT" + "a" * 32, "WT" + "b" * 32
STONES = Tombstones(KEY, [tombstone(KEY, "e", [TASK, "email:a@example.com", "phone:+12025550101"], 1000)])


def test_what_happened_until_then_is_covered_and_nothing_later():
    assert STONES.cover([OTHER, TASK], 1000)
    assert not STONES.cover([TASK], 1001)
    assert not STONES.cover([OTHER], 1)
    assert STONES.cover([TASK], 0)
    assert not STONES.cover([OTHER, ""], 0)  # of what does not say when it happened
    assert not Tombstones().cover([TASK], 1)


def test_nobodys_name_is_no_name_even_where_a_tombstone_has_it():
    """As of an erasure that was asked for with an empty name: what has no subject was then taken for theirs."""
    stones = Tombstones(KEY, [tombstone(KEY, "e", ["", "email:", "phone:", "external:", TASK], 1000)])

    assert not any(stones.cover([name], 0) for name in ("", "email:", "phone:", "external:"))
    assert stones.cover([TASK], 0)


def test_a_tombstone_names_nobody():
    digests = tombstone(KEY, "e", [TASK, "email:a@example.com"], 1).digests

    assert b"example" not in digests
    assert digests != tombstone(b"other", "e", [TASK, "email:a@example.com"], 1).digests


def test_a_phone_says_whose_it_is_only_where_no_mail_says_otherwise():
    def has(name: str) -> bool:
        return bool(STONES.until_ms(name))

    assert theirs(["phone:+12025550101"], has)
    assert not theirs(["phone:+12025550101", "email:b@example.com"], has)
    assert theirs(["phone:+12025550101", "email:b@example.com", TASK], has)


def test_names_are_found_in_forms_and_json_alike():
    form = b"From=whatsapp%3A%2B12025550101&x=" + TASK.encode() + b"&mail=A%40Example.com"

    assert names_in(form) >= {TASK, "phone:+12025550101", "email:a@example.com"}
    assert names_in(b'{"email": "a@example.com"}') == {"email:a@example.com"}


def test_of_receipts_that_name_others_too_it_is_known_whose_state_is_to_be_said_again():
    mine, others = f"{TASK}/task.created/task.created", f"{OTHER}/task.created/task.created"
    remains = Remains()

    of_receipts(
        [
            (1, Receipt(outcome="delivered", kind="event.track", ids=(mine, others), batch="x")),
            (2, Receipt(outcome="delivered", kind="event.track", ids=(others,), batch="y")),
            (3, Receipt(outcome="superseded", kind="event.track", ids=(others, mine))),
        ],
        STONES,
        remains,
    )

    assert remains.sequences == [1, 3]
    assert remains.others == {others}
    assert [one.ids for one in remains.again] == [(others,)]
