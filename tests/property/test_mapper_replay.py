"""Replays under any edit of the mapping and any history: what a plan says is what applying it does."""

import gzip
import random
from collections.abc import Callable, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as some

from ingest.sources import Request
from ingest.sources import read as ingested
from mapper.book import Book
from mapper.draft import Draft
from mapper.heard import read
from mapper.made import Made
from mapper.plan import since
from mapper.planning import Comparison, plan, write_expected
from mapper.recognise import Said
from mapper.step import ENDED, KEEP_MS, SURVEY, Policy, waiting_ids
from mapper.story import tell
from mapper.take import look, take
from sandbox.twilio import ACCOUNT_SID, interaction_webhook
from shared import command, trace
from shared.command import Command, ContactRelink, ContactUpsert, EventTrack
from shared.config import Config
from shared.event import RawEvent
from shared.plan import Asked, Expected, Plan

NOW_MS = 1_795_219_200_000  # 2026-11-21, after everything of the histories
WRITTEN: dict[str, Any] = {
    "connectors": {"twilio_flex": {"lists": {"support_contacts": 1, "csat_respondents": 2}}},
    "field_mapping": {
        "identity": "I", "friendly_name": "FIRSTNAME", "attributes.email": "email", "attributes.phone": "SMS",
        "total_conversations": "N", "last_conversation_date": "D", "avg_wait_time": "W", "last_csat_score": "S",
        "preferred_channel": "C", "customer_tier": "T", "open_tasks": "O",
    },
    "event_mapping": {
        "task.created": "SUPPORT_REQUESTED", "task.completed": "SUPPORT_RESOLVED", "task.canceled": "SUPPORT_ABANDONED",
        "reservation.accepted": "TAKEN", "conversation.ended": "CONVERSATION_ENDED", "survey.completed": "CSAT_SUBMITTED",
    },
}  # fmt: skip
FIELDS = {
    "abandoned_conversations": "A", "first_contact_date": "F", "avg_handle_time": "H", "customers.external_id": "X",
    "conversations.conversation_id": "CONVERSATION",
}  # fmt: skip


def _remove_field(written: dict[str, Any], dice: random.Random) -> None:
    written["field_mapping"].pop(dice.choice(sorted(written["field_mapping"])))


def _add_field(written: dict[str, Any], dice: random.Random) -> None:
    source = dice.choice(sorted(FIELDS))
    written["field_mapping"][source] = FIELDS[source]


def _rename_field(written: dict[str, Any], dice: random.Random) -> None:
    source = dice.choice(sorted(written["field_mapping"]))
    if not source.startswith("attributes."):
        written["field_mapping"][source] = f"NEW_{source.upper().replace('.', '_')}"


def _type(written: dict[str, Any], dice: random.Random) -> None:
    if "customer_tier" in written["field_mapping"]:
        kind = dice.choice(["text", "float", "boolean", "date"])
        written["field_mapping"]["customer_tier"] = {"attribute": "TIER", "type": kind}


def _flex(name: str, *values: Any) -> Any:
    def edit(written: dict[str, Any], dice: random.Random) -> None:
        written["connectors"]["twilio_flex"][name] = dice.choice(values)

    return edit


def _rule(written: dict[str, Any], dice: random.Random) -> None:
    type_ = dice.choice(sorted(written["event_mapping"]))
    name = f"NEW_{type_.replace('.', '_')}"
    written["event_mapping"][type_] = dice.choice(
        [
            name,
            {"name": name, "when": {"channel": ["voice"]}},
            {"name": name, "when": {"customer_tier": "gold"}},
            {"name": name, "enabled": False},
        ]
    )


def _add_rule(written: dict[str, Any], dice: random.Random) -> None:
    type_ = dice.choice(["task.wrapup", "reservation.created", "task-queue.entered", "reservation.completed"])
    written["event_mapping"][type_] = type_.replace(".", "_")


EDITS = (
    _remove_field,
    _add_field,
    _rename_field,
    _type,
    _rule,
    _add_rule,
    _flex("lists", {}, {"support_contacts": 3}, {"support_contacts": 1, "csat_respondents": 3}),
    _flex("channels", ["voice"], ["webchat"], ["voice", "webchat", "sms"]),
    _flex("own_numbers", ["+12025550101"], ["+12025550101", "+12025550102"], []),
    _flex("time_zone", "Asia/Tokyo", "America/Los_Angeles"),
    _flex("sync", {"csat": False}, {"tasks": False}, {"customers": False}),
)


def edited(written: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    new = deepcopy(written)
    for edit in dice.choices(EDITS, k=dice.randint(1, 5)):
        edit(new, dice)
    return new


@dataclass
class Contact:
    email: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    lists: set[int] = field(default_factory=set)


@dataclass
class Brevo:
    """What Brevo holds once it was told."""

    contacts: dict[str, Contact] = field(default_factory=dict)
    events: dict[str, str] = field(default_factory=dict)  # id → name; the ledger lets each through once

    def hear(self, commands: Sequence[Command]) -> None:
        for one in commands:
            match one:
                case ContactUpsert():
                    contact = self.contacts.setdefault(one.ext_id, Contact())
                    contact.email = one.email or contact.email
                    contact.attributes |= one.attributes
                    contact.lists |= set(one.list_ids)
                case ContactRelink() if one.was in self.contacts:
                    was = self.contacts.pop(one.was)
                    if one.over or one.ext_id not in self.contacts:
                        self.contacts[one.ext_id] = was
                case EventTrack():
                    assert one.ext_id in self.contacts
                    self.events.setdefault(one.id, one.name)


class Live:
    """The mapper with the book in force, and Brevo."""

    def __init__(self, config: Config, dice: random.Random) -> None:
        self.book, self.policy, self.brevo = Book(None), Policy.of(config), Brevo()
        self.refused: set[str] = set()  # dead letters
        self._dice = dice
        self.book.note_mapping(config)
        self.said: list[Command] = []

    def hear(self, events: Sequence[RawEvent], batch: int) -> None:
        for start in range(0, len(events), batch):
            heard = read_all(events[start : start + batch], self.policy)
            with self.book:
                sequence = self.book.sequence + batch
                self._say(take(self.book, heard, self.policy, now_ms=NOW_MS, sequence=sequence))

    def wait(self) -> None:
        while self.book.is_due(NOW_MS + 60_000):
            with self.book:
                self._say(look(self.book, self.policy, now_ms=NOW_MS + 60_000))

    def _say(self, made: Made) -> None:
        commands = [one for one, _ in made.commands]
        self.said += commands
        events = [one.id for one in commands if isinstance(one, EventTrack)]
        self.refused.update(id_ for id_ in events if self._dice.random() < 0.1)
        self.brevo.hear([one for one in commands if one.id not in self.refused])

    @property
    def events(self) -> list[EventTrack]:
        return [one for one in self.said if isinstance(one, EventTrack)]


def read_all(events: Sequence[RawEvent], policy: Policy) -> list:
    return [(one, trace.start()) for event in events if (one := read(event, policy.reading)) and one.links]


def named_late(events: Sequence[RawEvent], dice: random.Random, *, share: bool = False) -> list[RawEvent]:
    """The same; of some tasks the conversation is heard of late.  With `share`, some have it in common, and so are one."""
    known = list(events)
    for number, task in enumerate(sorted({one.subject for one in events if one.subject.startswith("WT")})):
        if dice.random() < 0.4:
            name = f"{dice.randrange(2) if share else number}"
            webhook = interaction_webhook("", "onChannelCreated", name, TaskSid=task)
            asked = Request(webhook.route, webhook.body, NOW_MS, ACCOUNT_SID, keep_bodies=False)
            first = min(at for at, one in enumerate(known) if one.subject == task)
            known[(at := dice.randint(first, len(known))) : at] = ingested(asked).events
    return known


def same(events: Sequence[RawEvent], config: Config) -> Callable[[str], str]:
    """Of a command's id what it is about, whichever of its sids an interaction was called by."""
    book = Book(None)
    tell(config, events, start_ms=NOW_MS, into=book)
    keys = dict(book._sql.execute("SELECT sid, key FROM link"))

    def about(id_: str) -> str:
        for own in (f"/{ENDED}/", f"/{SURVEY}/"):
            if own in id_:
                sid, _, rest = id_.partition(own)
                return f"{keys[sid]}{own}{rest}"
        return id_

    return about


def draw_up(draft: Book, policy: Policy, events: Sequence[RawEvent], *, to: int, batch: int = 1000) -> None:
    """Fold into the draft as the child does."""
    for start in range(0, len(events), batch):
        heard = read_all(events[start : start + batch], policy)
        with draft:
            put_out(draft, take(draft, heard, policy, now_ms=NOW_MS, sequence=0, contacts=False))
    with draft:
        draft.sequence = to
    while draft.is_due(NOW_MS + 60_000):
        with draft:
            put_out(draft, look(draft, policy, now_ms=NOW_MS + 60_000, contacts=False))


def put_out(draft: Book, made: Made) -> None:
    draft.put_out([command.to_message(one, trace.start()) for one, _ in made.commands])


def outbox(book: Book) -> list[Command]:
    while book.backlog.bring_on():
        pass
    messages = book.outbox(-(2**62), 1_000_000)[1]
    return [command.from_body(message.body) for message in messages]


def expected(draft: Draft, asked: Asked, config: Config, folder) -> dict[str, Expected]:
    write_expected(draft, asked, config, folder / "expected")
    lines = gzip.decompress((folder / "expected").read_bytes()).splitlines()
    found = [msgspec.json.decode(line, type=Expected) for line in lines]
    assert [one.ext_id for one in found] == sorted({one.ext_id for one in found})
    return {one.ext_id: one for one in found}


def values(one: ContactUpsert) -> tuple[Any, ...]:
    return one.email, one.attributes, one.list_ids


def holds(made: Plan, commands: Sequence[Command], before: Brevo) -> None:
    """The commands are the plan's lines, and nothing else."""
    upserts = {one.ext_id: one for one in commands if isinstance(one, ContactUpsert)}
    telling = {one.ext_id: one for one in made.contacts if one.action in ("create", "change", "again")}
    assert upserts.keys() == telling.keys()
    assert len([one for one in commands if isinstance(one, ContactUpsert)]) == len(upserts)
    for ext_id, line in telling.items():
        assert {name: after for name, (_, after) in line.attributes.items()}.items() <= upserts[
            ext_id
        ].attributes.items()
        assert line.email is None or line.email[1] == upserts[ext_id].email
        assert set(line.lists) <= set(upserts[ext_id].list_ids)
        if line.action == "create":
            assert ext_id not in before.contacts
            assert upserts[ext_id].attributes.keys() == line.attributes.keys()
        else:
            names = {*line.was, ext_id} & before.contacts.keys()
            assert any(
                line.attributes.keys() <= upserts[ext_id].attributes.keys()
                and all(before.contacts[name].attributes.get(key) == was for key, (was, _) in line.attributes.items() if was is not None)
                for name in names
            )  # fmt: skip
    assert [(one.was, one.ext_id) for one in commands if isinstance(one, ContactRelink)] == [
        (was, one.ext_id) for one in made.contacts for was in one.was
    ]
    assert [(one.id, one.ext_id, one.name, one.time) for one in commands if isinstance(one, EventTrack)] == [
        (one.id, one.ext_id, one.name, one.time) for one in made.events if one.action == "send"
    ]
    assert made.summary.create == sum(one.action == "create" for one in made.contacts)
    assert made.summary.relinks == sum(len(one.was) for one in made.contacts)


@given(seed=some.integers(0, 2**32), later=some.booleans())
@settings(max_examples=200, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_what_a_plan_says_is_what_applying_it_does(history, heard_as, tmp_path_factory, seed, later):
    dice = random.Random(seed)
    happened = history(dice)
    events = [heard_as(one, "callback") for one in happened.happened] + happened.plugin
    if dice.random() < 0.5:
        events = named_late(events, dice)
    first = WRITTEN if dice.random() < 0.3 else edited(WRITTEN, dice)
    old = msgspec.convert(first, Config)
    new = msgspec.convert(edited(first, dice), Config)
    live, draft, policy = Live(old, dice), Draft(None), Policy.of(new)
    draft.note_mapping(new)
    at = dice.randint(0, len(events)) if later else len(events)
    live.hear(events[:at], dice.choice([1, 3, 1000]))
    live.wait()
    asked = Asked(
        id="r1",
        mapping="",
        at_ms=NOW_MS,
        event_age_max_s=dice.choice([3600.0, 15 * 3600.0]),
        send_old_events=dice.random() < 0.5,
    )

    draw_up(draft, policy, events[:at], to=live.book.sequence, batch=dice.choice([1, 3, 1000]))
    draft.said(live.events)
    draft.ended(live.refused, has=False)
    draft.tell_again(dice.sample(sorted(live.brevo.contacts), len(live.brevo.contacts) // 2))
    comparison = Comparison(draft, live.book, policy, old, "r1")
    list(comparison.all())
    made = plan(draft, asked, mapping=new.hash, before=old.hash)

    assert Comparison(draft, live.book, policy, old, "r1").changed() == set()
    list(comparison.all())
    assert plan(draft, asked, mapping=new.hash, before=old.hash).hash == made.hash
    before = deepcopy(live.brevo)
    live.hear(events[at:], dice.choice([1, 3]))
    live.wait()
    draw_up(draft, policy, events[at:], to=live.book.sequence)
    draft.said(live.events)
    comparison.again(comparison.changed())
    shall = expected(draft, asked, new, tmp_path_factory.getbasetemp())
    with draft:
        draft.bring_lines_on(since(asked))
    said = outbox(draft)
    if at == len(events):
        holds(made, said, before)
    held = deepcopy(live.brevo)
    live.brevo.hear(said)

    fresh = tell(new, events, start_ms=NOW_MS)
    brevo = live.brevo
    assert {
        id_ for id_, one in shall.items() if id_ in fresh.contacts or one.attributes
    } <= brevo.contacts.keys()
    for id_, one in shall.items():
        contact = brevo.contacts[id_]
        assert one.attributes.items() <= contact.attributes.items()
        assert one.email in (None, contact.email)
        assert set(one.list_ids) <= contact.lists
    for id_, told in fresh.contacts.items():
        if id_ in shall:
            assert (shall[id_].email, shall[id_].attributes, shall[id_].list_ids) == (
                told.email, told.attributes, told.list_ids,
            )  # fmt: skip
    last = plan(draft, asked, mapping=new.hash, before=old.hash)
    about = same(events, new)
    ids = {
        action: {about(one.id) for one in last.events if one.action == action}
        for action in ("suppress", "sent")
    }
    waits = {id_ for one in draft.waiting() for some in waiting_ids(one).values() for id_ in some}  # nobody's
    wanted = {about(one.id) for one in fresh.events} - ids["suppress"]
    was_told = {about(id_) for id_ in held.events}
    refused = {about(id_) for id_ in live.refused} - was_told
    waits = {about(id_) for id_ in waits} & was_told
    assert {about(id_) for id_ in brevo.events} == (wanted | ids["sent"] | waits) - refused
    assert all(
        brevo.events[one.id] == one.name
        for one in fresh.events
        if about(one.id) not in was_told and one.id in brevo.events
    )
    while draft.is_due(NOW_MS + KEEP_MS):
        with draft:
            said += [one for one, _ in look(draft, policy, now_ms=NOW_MS + KEEP_MS).commands]
    again = {about(one.id) for one in said if isinstance(one, EventTrack)}
    assert not again & {about(one.id) for one in live.events}
    assert {one.action for one in made.contacts} <= {"create", "change", "again", "keep", "leave"}


def test_a_story_that_does_not_change_plans_nothing(history, heard_as):
    events = [heard_as(one, "callback") for one in history(random.Random(7)).happened]
    config = msgspec.convert(WRITTEN, Config)
    live, draft = Live(config, random.Random(8)), Draft(None)
    live.hear(events, 1)
    live.wait()
    draw_up(draft, live.policy, events, to=live.book.sequence)
    draft.said(live.events)
    comparison = Comparison(draft, live.book, live.policy, config, "r1")
    list(comparison.all())

    made = plan(draft, Asked(id="r1", mapping="", at_ms=NOW_MS), mapping=config.hash, before=config.hash)

    assert made.contacts == made.events == ()
    assert made.summary.unchanged == made.summary.customers == len(live.brevo.contacts)


@pytest.mark.parametrize("edit", EDITS)
def test_the_edits_make_other_mappings(edit):
    before = msgspec.convert(WRITTEN, Config)
    hashes = set()
    for seed in range(20):
        written = deepcopy(WRITTEN)
        edit(written, random.Random(seed))
        hashes.add(msgspec.convert(written, Config).hash)
    assert hashes - {before.hash}


@given(seed=some.integers(0, 2**32))
@settings(max_examples=200, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_what_was_said_is_never_said_again_whichever_sid_it_was_said_by(history, heard_as, seed):
    dice = random.Random(seed)
    happened = history(dice)
    events = named_late(
        [heard_as(one, "callback") for one in happened.happened] + happened.plugin, dice, share=True
    )
    config = msgspec.convert(WRITTEN, Config)
    live, draft, rebuilt = Live(config, dice), Draft(None), Book(None)
    live.hear(events, dice.choice([1, 3, 1000]))
    live.wait()
    told = {one.id for one in live.events}

    draw_up(draft, live.policy, events, to=live.book.sequence, batch=dice.choice([1, 3, 1000]))
    with draft:
        draft.said(live.events)
        draft.bring_lines_on("")
    draw_up(rebuilt, live.policy, events, to=live.book.sequence, batch=dice.choice([1, 3, 1000]))
    with closing(Said(rebuilt)) as said:
        said.note(told)
        said.recognise()

    assert not [one for one in outbox(draft) if isinstance(one, EventTrack)]
    assert {one.id for one in outbox(rebuilt)} <= told
