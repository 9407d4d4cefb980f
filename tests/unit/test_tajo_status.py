"""What a status is judged from: heartbeats, streams and durables, and how old each is."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.heartbeat import SILENT_S, BrevoSinkCounts, Heartbeat, IngestCounts, MapperCounts
from shared.topology import CONSUMERS, STREAMS
from tajo.status import Beat, Lag, Seen, Status, Stored, judge
from tajo.up import SERVICES

NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)
COUNTS = {
    "ingest": IngestCounts(accepted=132, spooled=3),
    "mapper": MapperCounts(interactions=10, customers=9, agents=5, sequence=138),
    "brevo-sink": BrevoSinkCounts(delivered=57, in_doubt=1),
}


def beat(service: str, *, instance: str = "host-1", ago_s: float = 1.0, **more) -> Beat:
    counts = msgspec.to_builtins(more.pop("counts", COUNTS.get(service, {})))
    said = Heartbeat(
        service=service, instance=instance, counts=counts, since="2026-11-25T09:00:00.000Z",
        **{"version": "0.1.0", "role": "working", **more},
    )  # fmt: skip
    return Beat(said, NOW - timedelta(seconds=ago_s))


def seen(*beats: Beat, **more) -> Seen:
    return Seen(**{
        "now": NOW,
        "beats": beats,
        "streams": {stream.name: Stored(0, datetime(1, 1, 1, tzinfo=UTC)) for stream in STREAMS},
        "lags": {consumer.durable: Lag(0, 0) for consumer in CONSUMERS},
        "cursors": {"tasks": 1_795_600_000_000, "conversations": 1_795_500_000_000},
        **more,
    })  # fmt: skip


def judged(*beats: Beat, **more) -> Status:
    return judge(seen(*beats, **more), tuple(SERVICES))


def but(*others: Beat, without: str = "") -> tuple[Beat, ...]:
    """One of each service that works, except one."""
    return (*(beat(name) for name in SERVICES if name != without), *others)


def errors(found: Status) -> list[str]:
    return [one.what for one in found.findings if one.level == "error"]


def test_all_that_works_is_connected_and_says_what_it_counts():
    found = judged(*but())

    assert found.connected
    assert not found.findings
    assert found.last_sync == "2026-11-25T09:46:40.000Z"
    assert (found.conversations_tracked, found.customers_linked, found.agents_monitored) == (10, 9, 5)
    assert (found.spooled, found.in_doubt, found.paused, found.last_event) == (3, 1, None, None)


def test_the_json_has_these_names_and_no_other():
    """Whoever reads it relies on them: a name may be added, and none changed."""
    told = msgspec.to_builtins(judged(*but(beat("mapper", instance="host-2", ago_s=20))))

    assert list(told) == [
        "connected", "lastSync", "conversationsTracked", "customersLinked", "agentsMonitored", "lastEvent", "lag",
        "deadLetters", "quarantined", "spooled", "inDoubt", "paused", "cursors", "services", "findings",
    ]  # fmt: skip
    assert told["lag"]["mapper"] == {"pending": 0, "inHand": 0}
    assert list(told["services"][0]) == [
        "service", "instance", "version", "role", "ready", "why", "note", "since", "heardAgoS", "counts",
    ]  # fmt: skip
    assert list(told["findings"][0]) == ["level", "what", "cause", "remedy"]


@pytest.mark.parametrize("name", SERVICES)
def test_one_that_is_not_there_or_silent_is_an_error_that_says_how_to_start_it(name):
    absent = judged(*but(without=name))
    silent = judged(*but(beat(name, ago_s=SILENT_S + 5), without=name))

    for found in (absent, silent):
        assert errors(found) == [f"{name} is not running"]
        assert f"docker compose up -d {name}" in found.findings[0].remedy
        assert not found.connected
    assert silent.findings[0].cause == "its last heartbeat is 20 s old"


def test_of_two_one_that_works_is_enough_and_the_silent_one_is_a_warning():
    found = judged(
        *but(beat("mapper", instance="host-2", role="standby"), beat("mapper", instance="host-3", ago_s=20))
    )

    assert found.connected
    assert [one.what for one in found.findings] == ["mapper on host-3 is silent"]
    assert [one.role for one in found.services if one.service == "mapper"] == ["working", "standby", "silent"]


def test_where_all_stand_by_nobody_works():
    found = judged(*but(beat("brevo-sink", role="standby"), without="brevo-sink"))

    assert errors(found) == ["no brevo-sink works"]
    assert found.paused is None
    assert found.in_doubt is None


def test_one_that_cannot_work_is_an_error_with_its_reason_and_one_of_two_a_warning():
    alone = judged(*but(beat("ingest", why="no spool: it is read-only"), without="ingest"))
    of_two = judged(*but(beat("ingest", instance="host-2", why="no spool: it is read-only")))

    assert errors(alone) == ["ingest on host-1 cannot work"]
    assert alone.findings[0].cause == "no spool: it is read-only"
    assert of_two.connected
    assert [one.what for one in of_two.findings] == ["ingest on host-2 cannot work"]
    assert of_two.spooled == 6  # of both


def test_a_pause_is_said_with_its_remedy():
    why = "the key is refused: set BREVO_API_KEY"
    counts = BrevoSinkCounts(paused=why)
    found = judged(*but(beat("brevo-sink", why=why, counts=counts), without="brevo-sink"))

    assert found.paused == why
    assert errors(found) == ["brevo-sink on host-1 cannot work"]


def test_dead_letters_quarantine_and_other_versions_are_warnings():
    streams = {stream.name: Stored(7, NOW) for stream in STREAMS}
    found = judged(*but(beat("ingest", instance="host-2", version="0.2.0")), streams=streams)

    assert found.connected
    assert [one.what for one in found.findings] == [
        "7 dead letters", "7 webhooks in quarantine", "services of the versions 0.1.0, 0.2.0 run",
    ]  # fmt: skip
    assert found.last_event == "2026-11-25T10:00:00.000Z"


def test_what_the_bootstrap_would_have_made_is_missed_and_nothing_is_said_of_services_without_their_bucket():
    found = judged(beats=None, streams={}, lags={}, cursors={})

    assert len(errors(found)) == 1
    assert "TWILIO" in errors(found)[0]
    assert "the durable mapper" in errors(found)[0]
    assert "tajo bootstrap" in found.findings[0].remedy
    assert (found.dead_letters, found.last_sync, found.spooled) == (None, None, None)


def test_counts_of_another_version_are_not_known_and_break_nothing():
    found = judged(*but(beat("mapper", counts={"interactions": "many"}), without="mapper"))

    assert found.connected
    assert found.conversations_tracked is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(SERVICES)), st.sampled_from(["working", "standby"]), st.booleans(),
            st.floats(0, 60), st.integers(0, 3),
        )
    )
)  # fmt: skip
def test_it_is_connected_exactly_when_one_of_each_is_heard_works_and_can(said):
    beats = [
        beat(name, role=role, why="" if well else "broken", ago_s=ago_s, instance=f"host-{number}")
        for name, role, well, ago_s, number in said
    ]

    found = judged(*beats)

    able = {name for name, role, well, ago_s, _ in said if role == "working" and well and ago_s <= SILENT_S}
    assert found.connected == (able == set(SERVICES))
    assert all(one.what and one.cause and one.remedy for one in found.findings)
