"""Facts of an interaction: however they are ordered, repeated, split and joined, the same interaction comes out."""

import msgspec
from hypothesis import given
from hypothesis import strategies as some

from mapper.heard import Heard
from mapper.interaction import Interaction, join, join_event
from mapper.said import Score

TYPES = (
    "task.created",
    "task-queue.entered",
    "reservation.accepted",
    "task.wrapup",
    "task.completed",
    "task.canceled",
)


@some.composite
def events(draw):
    number = draw(some.integers(1, 12))
    heard = []
    for index in range(number):
        type_ = draw(some.sampled_from(TYPES))
        task = draw(some.sampled_from(["WT1", "WT2", ""]))
        heard.append(
            Heard(
                id=f"EV{index}",
                type=type_,
                identity=f"{task}/{type_}",
                time_ms=draw(some.integers(1, 20)),
                task=task,
                conversation=draw(some.sampled_from(["", "CH1", "CH2"])),
                links=("WT1",),
                thin=draw(some.booleans()),
                virtual=draw(some.booleans()),
                outcome=draw(some.sampled_from(["", "a", "b"])),
                fields=draw(some.dictionaries(some.just("tier"), some.sampled_from(["q1", "q2"]))),
                channel_type=draw(some.sampled_from(["", "web", "sms"])),
                task_channel=draw(some.sampled_from(["", "default", "voice"])),
                queue=draw(some.sampled_from(["", "q1", "q2"])),
                agent=draw(some.sampled_from(["", "WK1"])),
                closed=draw(some.booleans()),
                score=draw(
                    some.none()
                    | some.builds(Score, some.sampled_from(["csat", "nps"]), some.integers(1, 5).map(float))
                ),
                identifiers=draw(
                    some.dictionaries(some.sampled_from(["email", "phone"]), some.sampled_from(["x", "y"]))
                ),
            )
        )
    return heard


def told(heard: list[Heard]) -> Interaction:
    interaction = Interaction(key="WT1")
    for one in heard:
        join_event(interaction, one)
    return interaction


def same(one: Interaction, other: Interaction) -> bool:
    def plain(interaction: Interaction) -> bytes:
        return msgspec.json.encode(interaction, order="deterministic")

    return plain(one) == plain(other)


@given(events(), some.randoms())
def test_any_order_and_repetition_makes_the_same_interaction(heard, random):
    again = heard + [random.choice(heard) for _ in heard]
    random.shuffle(again)

    assert same(told(heard), told(again))


@given(events(), some.integers(0, 12))
def test_two_halves_joined_either_way_are_the_whole(heard, cut):
    first, second = told(heard[:cut]), told(heard[cut:])
    other, another = told(heard[cut:]), told(heard[:cut])

    join(first, second)
    join(other, another)

    assert same(first, told(heard))
    assert same(other, told(heard))


@given(events())
def test_joining_with_itself_changes_nothing(heard):
    interaction = told(heard)

    join(interaction, told(heard))

    assert same(interaction, told(heard))
