"""How long until Brevo was told the past."""

from datetime import UTC, datetime

from shared.heartbeat import Heartbeat
from tajo.left import SEEN_S, Left, left, seconds_left
from tajo.status import Beat, Lag, Seen, Stored, judge

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def seen(*beats: Heartbeat, **lags: Lag):
    return judge(
        Seen(
            now=NOW, beats=[Beat(one, NOW) for one in beats], streams={"DEAD": Stored(3, NOW)},
            lags={name.replace("_", "-"): lag for name, lag in lags.items()}, cursors={},
        ),
        ("brevo-sink",),
    )  # fmt: skip


def sink(role="working", **how) -> Heartbeat:
    return Heartbeat(service="brevo-sink", instance=role, version="1", role=role, since="2026-11-25T11:00:00Z", **how)  # fmt: skip


def test_what_waits_and_is_in_hand_is_left_with_the_rate_of_the_one_that_works():
    found = left(
        seen(sink("standby", counts={"contactsPerSecond": 60.0}), sink(counts={"contactsPerSecond": 7.0}),
             brevo_sink=Lag(9, 9), brevo_sink_past=Lag(40, 2))
    )  # fmt: skip

    assert found == Left(commands=42, per_second=7.0, dead=3)


def test_why_brevo_is_told_nothing_is_said():
    paused = left(seen(sink(why="401: the key is refused"), brevo_sink_past=Lag(40, 0)))

    assert paused.why == "401: the key is refused"
    assert left(seen()) == Left(commands=None, dead=3, why="it has said nothing for a minute")


def test_counts_of_another_version_tell_no_rate():
    assert left(seen(sink(counts={"contactsPerSecond": "seven"}))).per_second is None


def test_what_is_left_takes_as_long_as_brevos_limits_say_and_later_as_what_was_seen():
    assert seconds_left(700, done=0, seconds=1, per_second=7.0) == 100
    assert seconds_left(700, done=0, seconds=1, per_second=None) is None
    assert seconds_left(700, done=200, seconds=SEEN_S, per_second=7.0) == 70
    assert seconds_left(700, done=0, seconds=SEEN_S, per_second=7.0) == 100
