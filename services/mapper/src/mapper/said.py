"""What the attributes of a task say.  Pure."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from msgspec import Struct

from mapper.attributes import (
    as_number,
    friendly_name,
    identifiers,
    identity,
    json_object,
    links,
    lookup,
    scalar,
    text,
)
from shared.config import Survey

SURVEY_MAX = 64  # characters of a survey's name, which is part of an id
NAMED = {"identity": identity, "friendly_name": friendly_name}  # mapped sources with rules of their own
TEXTS_MAX = 4096  # task attributes remembered; a task has a dozen events with the same
REMEMBERED_MAX = 12_288  # characters of one: Twilio takes 4 KB, and a form writes some with three


class Score(Struct, frozen=True, gc=False):
    """A satisfaction score, and the survey it answers."""

    survey: str
    score: float


class Reading(Struct, frozen=True, eq=False):
    """What of the configuration decides what is read."""

    own_numbers: frozenset[str] = frozenset()
    sources: tuple[str, ...] = ()  # of field mapping and rules; the customer's identity and aggregates apart
    survey: Survey = Survey()


class Said(Struct, frozen=True, gc=False):
    """What the attributes of a task say."""

    conversation: str = ""
    links: tuple[str, ...] = ()
    channel_type: str = ""
    virtual: bool = False
    outcome: str = ""
    score: Score | None = None
    fields: Mapping[str, Any] = {}
    identifiers: Mapping[str, str] = {}


def said(attributes: str, reading: Reading) -> Said:
    """The attributes of a task hardly change while it lives, and come with each of its events: read them once."""
    return (remembered if len(attributes) <= REMEMBERED_MAX else remembered.__wrapped__)(attributes, reading)


@lru_cache(maxsize=TEXTS_MAX)
def remembered(attributes: str, reading: Reading) -> Said:
    """`said`, of attributes that are no larger than any of Twilio's."""
    return say(json_object(attributes), reading)


def say(attributes: Mapping[str, Any], reading: Reading) -> Said:
    """Read them, whatever the project put there."""
    conversation = text(attributes, "conversationSid")
    insights = attributes.get("conversations")
    insights = insights if isinstance(insights, Mapping) else {}
    # What Flex Insights keeps: https://www.twilio.com/docs/flex/developer/insights/enhance-integration
    outcome = insights.get("outcome")
    return Said(
        conversation=conversation,
        links=links(
            conversation, attributes.get("call_sid"), lookup(attributes, "conversations.conversation_id"),
            attributes.get("flexInteractionSid"),
        ),
        channel_type=text(attributes, "channelType"),
        virtual=insights.get("virtual") == "Yes",
        outcome=outcome if isinstance(outcome, str) else "",
        score=_score(attributes, reading.survey),
        fields=_fields(attributes, reading.sources),
        identifiers=identifiers(attributes, reading.own_numbers),
    )  # fmt: skip


def _fields(attributes: Mapping[str, Any], sources: tuple[str, ...]) -> dict[str, Any]:
    """The mapped values; what is absent or empty is not said."""
    values = {
        source: NAMED[source](attributes) if source in NAMED else scalar(lookup(attributes, source))
        for source in sources
    }
    return {source: value for source, value in values.items() if value is not None}


def _score(attributes: Mapping[str, Any], survey: Survey) -> Score | None:
    """The satisfaction score, if any path of the configuration leads to one."""
    for path in survey.score:
        number = as_number(lookup(attributes, path))
        if number is not None:
            name = next(
                (name for path in survey.name if isinstance(name := lookup(attributes, path), str)), "csat"
            )
            return Score(name[:SURVEY_MAX], number)
    return None
