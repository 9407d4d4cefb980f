"""Taking somebody out of the book leaves it as if the log had never held them, whoever shares a phone with them."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mapper import erase
from mapper.book import Book
from mapper.heard import Heard
from mapper.step import Policy
from mapper.take import take
from shared.connector_file import load

POLICY = Policy.of(load(Path(__file__).parent.parent.parent / "config/tajo.yaml"))
MAILS, PHONES = ("a@example.com", "b@example.com", "c@example.com", ""), ("+12025550101", "+12025550102", "")


def heard(number: int, mail: str, phone: str) -> Heard:
    known = {"email": mail, "phone": phone}
    return Heard(
        id=f"EV{number}", type="task.created", identity=f"WT{number:032}/task.created", time_ms=1_800_000_000_000 + number,
        task=f"WT{number:032}", links=(f"WT{number:032}",), task_channel="voice",
        identifiers={kind: value for kind, value in known.items() if value},
    )  # fmt: skip


def told(events: list[Heard]) -> Book:
    book = Book(None)
    for place, event in enumerate(events, start=1):
        with book:
            take(book, [(event, "")], POLICY, now_ms=1_900_000_000_000, sequence=place)
    return book


@given(
    st.lists(st.tuples(st.sampled_from(MAILS), st.sampled_from(PHONES)), max_size=12),
    st.sampled_from(("email:a@example.com", "phone:+12025550101")),
)
def test_a_book_somebody_is_taken_out_of_is_the_one_made_of_what_is_left(contacts, whom):
    events = [heard(number, mail, phone) for number, (mail, phone) in enumerate(contacts)]
    book = told(events)
    person = erase.find(book, whom.__eq__)
    tasks = {sid for one in person.interactions.values() for sid in one.links}

    with book:
        erase.erase(book, person, POLICY, now_ms=1_900_000_000_000)

    left = told([event for event in events if event.task not in tasks])
    assert book.facts() == left.facts()
