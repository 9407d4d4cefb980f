"""What a replay is about, from the words of a person."""

import pytest

from shared.replay import Selection
from tajo.selecting import CUSTOMERS_MAX, SelectionError, selection

TASK = "WT" + "0" * 32
DAY_MS = 86_400_000


def test_nothing_given_selects_nobody():
    assert selection().empty


def test_all_that_is_given_is_understood_and_each_word_kept_once():
    found = selection(
        subjects=["twilio.*.*.taskrouter.>, twilio.AC1.17.survey.survey.completed"],
        since="2026-11-01", until="2026-11-02T00:00:00Z", sequence="17-40",
        tasks=[TASK, TASK], customers=["maria@example.com", "+12025550101,"],
    )  # fmt: skip

    assert found == Selection(
        subjects=("twilio.*.*.taskrouter.>", "twilio.AC1.17.survey.survey.completed"),
        since_ms=found.until_ms - DAY_MS, until_ms=found.until_ms, first=17, last=40,
        tasks=(TASK,), customers=("maria@example.com", "+12025550101"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("17", (17, 17)), ("17-40", (17, 40)), ("17-", (17, 0)), ("-40", (0, 40)),
        ("17..40", (17, 40)), ("17..", (17, 0)), ("..40", (0, 40)),
    ],
)  # fmt: skip
def test_a_sequence_is_one_or_some_or_all_from_or_up_to_there(text, bounds):
    found = selection(sequence=text)

    assert (found.first, found.last) == bounds


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"subjects": ["brevo.>"]}, "brevo.> is no subject of TWILIO"),
        ({"subjects": ["twilio.>.task"]}, "is no subject of TWILIO"),
        ({"subjects": ["twilio.a*"]}, "is no subject of TWILIO"),
        ({"subjects": ["twilio"]}, "twilio is no subject of TWILIO"),
        ({"since": "yesterday"}, "yesterday is no date: write 2024-01-01"),
        ({"since": "2026-11-02", "until": "2026-11-01"}, "2026-11-01 is not after 2026-11-02"),
        ({"sequence": "0"}, "0 is no sequence of TWILIO"),
        ({"sequence": "40-17"}, "40-17 is no sequence"),
        ({"sequence": "-"}, "- is no sequence"),
        ({"sequence": "0-17"}, "0-17 is no sequence"),
        ({"sequence": "17.40"}, "17.40 is no sequence"),
        ({"sequence": "1" * 20}, "is no sequence"),
        ({"sequence": "9999999999999999999"}, "is no sequence"),
        ({"sequence": ""}, "an empty text is no sequence"),
        ({"until": ""}, "an empty text is no date"),
        ({"subjects": [","]}, "an empty text names no subject: leave the option out where all are meant"),
        ({"tasks": [TASK, ""]}, "an empty text names no task"),
        ({"customers": [" "]}, "an empty text names no customer"),
        ({"tasks": ["EV" + "0" * 32]}, "names no interaction"),
        ({"customers": [str(n) for n in range(CUSTOMERS_MAX + 1)]}, "10,001 customers are named: at most 10,000"),
    ],
)  # fmt: skip
def test_what_is_none_is_said_with_what_to_write(words, said):
    with pytest.raises(SelectionError) as error:
        selection(**words)

    assert said in str(error.value)
