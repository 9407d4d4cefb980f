"""What a plan says to a person, what of Brevo it does not explain, and whose a contact of another name is."""

import io

import pytest
from rich.console import Console

from shared.receipt import Receipt, Told
from shared.replay import Asked, ContactLine, EventLine, Plan, Summary
from tajo.drift import Difference
from tajo.drifted import Drift, counted, mended_by, unexplained
from tajo.named import hear, names
from tajo.plan import changes, old_events, show

AT_MS = 1_795_600_000_000  # 2026-11-25
HOUR_AGO, TWO_HOURS_AGO = "2026-11-25T08:46:40Z", "2026-11-25T07:46:39Z"


def plan(*lines, summary=None, **asked) -> Plan:
    return Plan(
        id="r1", mapping="bbb", mapping_before="bbb", sequence=7,
        asked=Asked(id="r1", mapping="", at_ms=AT_MS, **asked), summary=summary or Summary(),
        contacts=tuple(one for one in lines if isinstance(one, ContactLine)),
        events=tuple(one for one in lines if isinstance(one, EventLine)),
    )  # fmt: skip


def event(time: str, action="send") -> EventLine:
    return EventLine(id=f"{time}/x", ext_id="tajo-1", name="X", time=time, action=action)


def printed(one: Plan, **how) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(one, console, **how)
    return console.file.getvalue()


def test_an_event_is_old_by_its_time_when_the_plan_was_asked_for():
    lines = (event(TWO_HOURS_AGO), event(HOUR_AGO), event(TWO_HOURS_AGO, "suppress"))

    assert old_events(plan(*lines, event_age_max_s=4000)) == 1
    assert old_events(plan(*lines, event_age_max_s=10)) == 2
    assert old_events(plan(*lines, event_age_max_s=8000)) == 0


def test_nothing_that_a_customer_is_called_is_taken_for_markup():
    line = ContactLine(ext_id="tajo-1", action="change", attributes={"N": ("[red]", "[/bold]")})

    assert "N  [red] → [/bold]" in printed(plan(line))


def test_what_is_not_told_is_no_change():
    assert not changes(plan(summary=Summary(keep=1, leave=1, suppress=1, sent=1)))
    for one in ("create", "change", "again", "relinks", "send"):
        assert changes(plan(summary=Summary(**{one: 1})))


def test_suppressed_events_are_said_with_how_to_send_them():
    text = printed(plan(summary=Summary(suppress=2), event_age_max_s=90))

    assert (
        "2 events that happened longer than 90 s before are not sent; --send-old-events sends them." in text
    )
    assert "mapping bbb, which is in force" in text


LINES = (
    ContactLine(
        ext_id="tajo-1", action="change", email=(None, "a@example.com"), attributes={"TIER": (1, 2)}, kept={"OLD": 1},
        lists=(32,), lists_kept=(33,), conflicts=("SMS",),
    ),
    ContactLine(ext_id="tajo-2", action="create"),
    ContactLine(ext_id="tajo-3", action="leave"),
    event(HOUR_AGO),
)  # fmt: skip


@pytest.mark.parametrize(
    "one",
    [
        Difference(kind="email", ext_id="tajo-1"),
        Difference(kind="attribute", ext_id="tajo-1", what="TIER"),
        Difference(kind="attribute", ext_id="tajo-1", what="OLD"),
        Difference(kind="attribute", ext_id="tajo-1", what="SMS"),
        Difference(kind="list_missing", ext_id="tajo-1", what="32"),
        Difference(kind="list_extra", ext_id="tajo-1", what="33"),
        Difference(kind="contact_missing", ext_id="tajo-2"),
        Difference(kind="contact_extra", ext_id="tajo-3"),
        Difference(kind="event_missing", ext_id="tajo-1", what=f"{HOUR_AGO}/x"),
    ],
)
def test_what_the_plan_changes_or_says_to_stay_is_no_drift(one):
    assert unexplained([one], plan(*LINES)) == []


@pytest.mark.parametrize(
    ("one", "mended"),
    [
        (Difference(kind="email", ext_id="tajo-2"), True),
        (Difference(kind="attribute", ext_id="tajo-1", what="VIP"), True),
        (Difference(kind="attribute", ext_id="tajo-9", what="TIER"), True),
        (Difference(kind="list_missing", ext_id="tajo-1", what="33"), True),
        (Difference(kind="contact_missing", ext_id="tajo-1"), True),
        (Difference(kind="contact_extra", ext_id="tajo-9"), False),
        (Difference(kind="list_extra", ext_id="tajo-1", what="32"), False),
        (Difference(kind="event_missing", ext_id="tajo-1", what="WT9/x"), False),
    ],
)
def test_everything_else_is_drift_and_a_contact_told_again_is_mended(one, mended):
    assert unexplained([one], plan(*LINES)) == [one]
    assert mended_by([one, one]) == ((one.ext_id,) if mended else ())
    assert counted(Drift((one,), (), 1, 1, "")) == {one.kind: 1}


def told(ext_id: str, name: str = "") -> Receipt:
    return Receipt(
        outcome="delivered", kind="contact.upsert", ids=("x",),
        told=Told(ext_id=ext_id, version=1, position=1, mapping="aaa", name=name),
    )  # fmt: skip


def relinked(was: str, now: str) -> Receipt:
    return Receipt(outcome="delivered", kind="contact.relink", ids=(f"{was}/{now}/3",))


@pytest.mark.parametrize(
    ("receipts", "found"),
    [
        ([told("tajo-1")], {}),
        ([told("tajo-1", "crm-7")], {"crm-7": "tajo-1"}),
        ([relinked("tajo-1", "tajo-2"), relinked("tajo-2", "tajo-3")], {"tajo-1": "tajo-3", "tajo-2": "tajo-3"}),
        ([relinked("tajo-1", "tajo-2"), told("tajo-1")], {}),
        ([relinked("tajo-1", "tajo-2"), relinked("tajo-2", "tajo-1")], {"tajo-2": "tajo-1"}),
        ([told("tajo-1", "crm-7"), relinked("tajo-1", "tajo-2")], {"crm-7": "tajo-2", "tajo-1": "tajo-2"}),
        ([Receipt(outcome="delivered", kind="event.track", ids=("x",))], {}),
    ],
)  # fmt: skip
def test_a_contact_of_another_name_is_whose_the_receipts_say(receipts, found):
    hops: dict[str, str] = {}
    for one in receipts:
        hear(hops, one)

    assert names(hops, plan()) == found


def test_what_the_plan_will_name_anew_is_whose_it_will_be():
    hops = {"crm-7": "tajo-1"}
    line = ContactLine(ext_id="tajo-2", action="change", was=("tajo-1",))

    assert names(hops, plan(line)) == {"crm-7": "tajo-2", "tajo-1": "tajo-2"}
