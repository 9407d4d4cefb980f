"""What was said under another sid of its interaction is recognised, in a draft, an outbox and what waits."""

from contextlib import closing

import pytest

from mapper.book import Book
from mapper.draft import Draft
from mapper.fold import Page
from mapper.interaction import Interaction, Waiting
from mapper.recognise import Said
from mapper.step import ENDED, SURVEY
from shared import command, trace
from shared.command import EventTrack
from shared.message import MSG_ID

TASK, CONVERSATION, OTHER = "WT1", "CH1", "WT2"


def ended(sid: str) -> EventTrack:
    return EventTrack(id=f"{sid}/{ENDED}/{ENDED}", ext_id="tajo-1", name="X", time="2026-11-20T10:00:00.000Z")


def surveyed(sid: str, name: str = "csat") -> EventTrack:
    return EventTrack(
        id=f"{sid}/{SURVEY}/{name}/{SURVEY}", ext_id="tajo-1", name="X", time="2026-11-20T10:00:00.000Z"
    )


def know(book: Book, **more) -> Book:
    """One interaction that is called by its task and by its conversation, and another."""
    ours = Interaction(key=TASK, links={TASK, CONVERSATION}, conversations={CONVERSATION: 1}, **more)
    others = Interaction(key=OTHER, links={OTHER})
    links = {TASK: TASK, CONVERSATION: TASK, OTHER: OTHER}
    with book:
        book.write(
            Page(links, {TASK: ours, OTHER: others}, {}, set(), {}, changed={TASK, OTHER}, linked=set(links))
        )
    return book


def put_out(book: Book, *tracks: EventTrack) -> None:
    with book:
        book.put_out([command.to_message(one, trace.start()) for one in tracks])


@pytest.mark.parametrize("made", [ended, surveyed])
def test_a_draft_does_not_send_what_was_said_by_another_sid(made):
    draft = Draft(None)
    know(draft)
    put_out(draft, made(CONVERSATION), made(OTHER))
    with draft:
        draft.said([made(TASK)])

        draft.bring_lines_on("")

    draft.backlog.bring_on()
    (said,) = draft.outbox(0, 10)[1]
    assert command.from_body(said.body) == made(OTHER)


def test_another_survey_of_the_same_interaction_is_another_event():
    draft = Draft(None)
    know(draft)
    put_out(draft, surveyed(CONVERSATION, "nps"))
    with draft:
        draft.said([surveyed(TASK, "csat"), ended(TASK)])

        assert draft.bring_lines_on("") == 1


def test_an_outbox_says_it_under_the_id_it_was_said_under():
    book = know(Book(None))
    put_out(book, ended(CONVERSATION), surveyed(TASK), ended(OTHER))

    with closing(Said(book)) as said:
        said.note([ended(TASK).id, surveyed(TASK).id, f"{OTHER}/task.completed/task.completed"])
        said.recognise()

    messages = book.outbox(0, 10)[1]
    assert [command.from_body(one.body) for one in messages] == [ended(TASK), surveyed(TASK), ended(OTHER)]
    assert [one.headers[MSG_ID] for one in messages] == [ended(TASK).id, surveyed(TASK).id, ended(OTHER).id]


def test_what_waits_though_it_was_said_never_goes_out():
    waiting = {ENDED: Waiting(ENDED, 1, 1), f"{SURVEY}/csat": Waiting(SURVEY, 1, 1, survey="csat")}
    book = know(Book(None), waiting=waiting)

    with closing(Said(book)) as said:
        said.note([ended(TASK).id, surveyed(OTHER).id])
        said.recognise()

    (one,) = book.waiting()
    assert (set(one.waiting), one.told) == ({f"{SURVEY}/csat"}, {ENDED})
