"""Golden stories: a folder with a mapping, what was heard, and what Brevo shall then know.

`pytest tests/golden --rewrite-stories` writes each `then.json` anew; the reviewer reads the diff.
"""

import random
from pathlib import Path

import msgspec
import pytest

from mapper.story import Then, given, tell
from shared.config import load

STORIES = sorted(path.parent for path in Path(__file__).parent.glob("*/mapping.yaml"))


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_story_ends_as_written(story: Path, request: pytest.FixtureRequest):
    told = tell(load(story / "mapping.yaml"), given((story / "given.ndjson").read_bytes()))
    if request.config.getoption("--rewrite-stories"):
        (story / "then.json").write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")

    assert told == msgspec.json.decode((story / "then.json").read_bytes(), type=Then)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_story_ends_the_same_when_everything_is_heard_twice(story: Path):
    heard = given((story / "given.ndjson").read_bytes())

    told = tell(load(story / "mapping.yaml"), [event for event in heard for _ in range(2)])

    assert told == msgspec.json.decode((story / "then.json").read_bytes(), type=Then)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
@pytest.mark.parametrize("seed", range(5))
def test_story_ends_with_the_same_contacts_and_events_in_any_order_and_batch(story: Path, seed: int):
    """An event's optional properties are what was known when it was sent, so they are not compared."""
    heard = given((story / "given.ndjson").read_bytes()) * 2
    random.Random(seed).shuffle(heard)

    told = tell(load(story / "mapping.yaml"), heard, batch=4**seed)

    then = msgspec.json.decode((story / "then.json").read_bytes(), type=Then)
    assert told.contacts == then.contacts
    assert sorted((event.name, event.id) for event in told.events) == sorted(
        (e.name, e.id) for e in then.events
    )
    assert told.given_up == then.given_up
