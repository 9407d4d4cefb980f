"""Whole histories, told in any order, repeatedly, from every source: the book and what Brevo is told stay the same."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as some

from mapper.book import Book
from mapper.heard import read
from mapper.step import KEEP_MS, Policy
from mapper.story import Then, tell
from mapper.take import look, take
from shared.connector_file import parse

CONFIG = parse(
    """
connectors: {twilio_flex: {lists: {support_contacts: 1, csat_respondents: 2}}}
field_mapping:
  {identity: I, friendly_name: FIRSTNAME, attributes.email: email, attributes.phone: SMS, total_conversations: N,
  last_conversation_date: D, avg_wait_time: W, last_csat_score: S, preferred_channel: C, customer_tier: T, open_tasks: O}
event_mapping:
  {task.created: SUPPORT_REQUESTED, task.completed: SUPPORT_RESOLVED, task.canceled: SUPPORT_ABANDONED,
  reservation.accepted: TAKEN, conversation.ended: CONVERSATION_ENDED, survey.completed: CSAT_SUBMITTED}
"""
)
CASES = {
    "abandoned", "anonymous", "callback", "two mails of one", "late mail", "plugin", "client", "several reservations",
    "shared phone", "survey after", "survey before", "transfer", "virtual task", "nobody", "phone then mail",
}  # fmt: skip


def told(then: Then) -> dict[str, Any]:
    """What must be equal of what Brevo is told.

    An event's optional properties are what was known when it was sent.  A contact without interactions was somebody's
    for a while, and in another order nobody's.
    """
    return {
        "contacts": {id_: one for id_, one in then.contacts.items() if one.attributes["N"]},
        "events": sorted((event.id, event.name) for event in then.events),
        "given_up": then.given_up,
    }


def whose(then: Then) -> Counter[tuple[str, str, str]]:
    """Each event with the contact that has it in the end."""
    return Counter((event.contact, event.name, event.id) for event in then.events)


def astray(book: Book) -> set[str]:
    """Sids that do not lead to the interaction that has them."""
    keys = dict(book._sql.execute("SELECT sid, key FROM link"))
    bodies = book._sql.execute("SELECT body FROM interaction")
    interactions = [book._interaction.decode(body) for (body,) in bodies]
    return {sid for one in interactions for sid in one.links if keys.get(sid) != one.key}


@pytest.mark.long
@given(seed=some.integers(0, 2**32), batch=some.sampled_from([1, 3, 1000]))
@settings(max_examples=500, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_any_order_repetition_and_mixture_of_sources_tells_the_same(history, heard_as, seed, batch):
    dice = random.Random(seed)  # a seed shrinks to nothing: what it made is as long as any other
    made = history(dice)
    once = [heard_as(one, "callback") for one in made.happened] + made.plugin
    mixed = [
        heard_as(one, how)
        for one in made.happened
        for how in dice.sample(["callback", "stream", "rest"], dice.randint(1, 3))
    ] + made.plugin
    mixed += dice.sample(mixed, dice.randint(0, len(mixed)))
    dice.shuffle(mixed)
    first, second = Book(None), Book(None)

    plain, other = tell(CONFIG, once, into=first), tell(CONFIG, mixed, batch=batch, into=second)

    assert told(other) == told(plain)
    if (
        "shared phone" not in made.cases
    ):  # what was told while a phone was one person's stays with that contact
        assert whose(other) == whose(plain)
    assert second.facts() == first.facts()
    assert not astray(second)
    assert len({event.id for event in other.events}) == len(other.events)


@given(seed=some.integers(0, 2**32), batch=some.sampled_from([1, 3, 7, 1000]))
@settings(max_examples=200, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_a_book_made_whole_from_the_log_is_the_same_whatever_the_batch(history, heard_as, seed, batch):
    dice = random.Random(seed)
    made = history(dice)
    mixed = [
        heard_as(one, dice.choice(["callback", "stream", "rest"])) for one in made.happened
    ] + made.plugin
    mixed += dice.sample(mixed, len(mixed) // 3)
    dice.shuffle(mixed)
    heard, policy = Book(None), Policy.of(CONFIG)
    tell(CONFIG, mixed, into=heard)

    rebuilt = Book(None)
    events = [(one, "") for event in mixed if (one := read(event, policy.reading)) and one.links]
    with rebuilt.unhurried():
        for start in range(0, len(events), batch):
            with rebuilt:
                take(
                    rebuilt,
                    events[start : start + batch],
                    policy,
                    now_ms=0,
                    sequence=start + 1,
                    contacts=False,
                )
    while rebuilt.is_due(KEEP_MS):
        look(rebuilt, policy, now_ms=KEEP_MS)

    assert rebuilt.facts() == heard.facts()
    assert not astray(rebuilt)


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_histories_reach(history, case):
    assert any(case in history(random.Random(seed)).cases for seed in range(100))
