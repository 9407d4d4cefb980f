"""Golden stories: a folder with a mapping, what was heard, and what Brevo shall then know.

They run as `tajo mapping test` runs those of our users.  `pytest tests/golden --rewrite-stories` writes each `then.json`
anew; the reviewer reads the diff.
"""

import random
from pathlib import Path

import pytest

from mapper.story import given, run, tell, then_of, to_json
from shared.connector_file import load

STORIES = sorted(path.parent for path in Path(__file__).parent.glob("*/mapping.yaml"))


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_story_ends_as_written(story: Path, request: pytest.FixtureRequest):
    """Also when everything is heard twice, and in any order and batch."""
    config, heard = load(story / "mapping.yaml"), given((story / "given.ndjson").read_bytes())
    if request.config.getoption("--rewrite-stories"):
        (story / "then.json").write_bytes(to_json(tell(config, heard)))

    assert run(config, heard, then_of((story / "then.json").read_bytes())) == []


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_how_long_it_lasted_is_told_in_whatever_order_it_was_heard(story: Path):
    """It waits, at most ten seconds, for what will be known."""
    config, heard = load(story / "mapping.yaml"), given((story / "given.ndjson").read_bytes())
    then = {event.id: event for event in then_of((story / "then.json").read_bytes()).events}
    ends = ("/task.completed", "/task.canceled", "/conversation.ended")

    for seed in range(10):
        random.Random(seed).shuffle(shuffled := list(heard))
        for event in tell(config, shuffled).events:
            wanted = then[event.id].properties.keys() & {"duration_seconds", "wait_seconds"}
            assert not event.id.endswith(ends) or wanted <= event.properties.keys()


def test_a_story_that_ends_otherwise_is_said_to_in_each_way_of_hearing_it():
    story = STORIES[-1]
    config, heard = load(story / "mapping.yaml"), given((story / "given.ndjson").read_bytes())
    then = then_of((story / "then.json").read_bytes())
    then.events[0].properties["channel"] = "voice"

    assert [failure.way for failure in run(config, heard, then)] == [
        "in the order given",
        "with each event heard twice",
    ]
    then.events.pop()
    assert len(run(config, heard, then)) == 7
