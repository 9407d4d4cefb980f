"""What the options of a selection mean."""

import pytest
import typer
from typer.testing import CliRunner

from shared.replay import Selection
from tajo.log_selection import in_time, selection
from tajo.main import app


@pytest.mark.parametrize(
    ("written", "first", "last"),
    [("17", 17, 17), ("17-42", 17, 42), ("17..42", 17, 42), ("17-", 17, 0), ("..42", 0, 42), (None, 0, 0)],
)
def test_a_sequence_or_a_range_of_them(written, first, last):
    assert selection(sequence=written) == Selection(first=first, last=last)


@pytest.mark.parametrize(
    "options",
    [
        {"sequence": "x"}, {"sequence": ""}, {"since": ""}, {"sequence": "5-2"}, {"sequence": "0"}, {"sequence": ".."}, {"sequence": "1.2"},
        {"since": "soon"}, {"until": "2026-13-01"}, {"subjects": ["brevo.>"]}, {"subjects": ["twilio"]},
        {"subjects": ["twilio.a b"]}, {"subjects": ["twilio.>.x"]}, {"subjects": ["twilio..x"]},
    ],
)  # fmt: skip
def test_what_means_nothing_is_wrong_usage(options):
    with pytest.raises(typer.BadParameter):
        selection(**options)


@pytest.mark.parametrize(
    "words", [("ls", "--last", "0"), ("ls", "--last", "-5"), ("ls", "--task", ""), ("export", "--task", " ")]
)
def test_none_and_an_empty_sid_are_wrong_usage(words):
    done = CliRunner().invoke(app, ["log", *words])

    assert done.exit_code == 2
    assert words[1] in done.output


def test_time_is_when_it_happened_from_inclusive_to_exclusive():
    what = selection(since="2026-11-20", until="2026-11-21")

    assert in_time(what, "2026-11-20T00:00:00.000Z")
    assert not in_time(what, "2026-11-21T00:00:00.000Z")
    assert not in_time(what, "no time")
    assert in_time(Selection(), "no time")
