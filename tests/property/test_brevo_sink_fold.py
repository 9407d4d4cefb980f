"""Folding receipts: in whatever chunks they come and however often, they make the ledger of the sink that said them."""

from contextlib import contextmanager

from hypothesis import given, settings
from hypothesis import strategies as some

from brevo_sink.fold import change
from brevo_sink.ledger import Ledger
from shared import receipt
from shared.receipt import Receipt, Told

IDS = tuple("abcdef")
some_ids = some.lists(some.sampled_from(IDS), min_size=1, unique=True).map(tuple)
some_told = some.builds(
    Told,
    ext_id=some.sampled_from(["tajo-x", "tajo-y"]),
    version=some.integers(1, 9),
    position=some.integers(1, 99),
    mapping=some.sampled_from(["m", "n"]),
)
some_events = some.builds(
    Receipt,
    outcome=some.sampled_from(
        ["sending", "unsent", "in_doubt", "delivered", "unresolved", "rejected", "no_identity"]
    ),
    kind=some.just("event.track"),
    ids=some_ids,
    batch=some.sampled_from(["", "b1", "b2"]),
)
some_contacts = some.builds(
    Receipt,
    outcome=some.sampled_from(["delivered", "superseded", "rejected"]),
    kind=some.just("contact.upsert"),
    ids=some.just(("u",)),
    told=some.none() | some_told,
)
some_ends = some.builds(
    Receipt,
    outcome=some.sampled_from(["delivered", "rejected"]),
    kind=some.just("contact.delete"),
    ids=some.just(("d",)),
    told=some.none() | some_told,
)
some_receipts = some.lists(some_events | some_contacts | some_ends, max_size=30)

PLAY = some.lists(
    some.tuples(
        some.sampled_from(
            ["deliver", "refuse", "fail", "vanish", "part", "upsert", "forget", "give up", "look"]
        ),
        some_ids,
        some_told,
    ),
    max_size=25,
)


@contextmanager
def opened(path=None):
    ledger = Ledger(path)
    try:
        yield ledger
    finally:
        ledger.close()


def held(ledger: Ledger):
    """All the ledger holds, but how far it has read."""
    return [
        ledger._sql.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        for table in ("event", "contact", "erased", "renamed")
    ]


def include(ledger: Ledger, numbered) -> None:
    ledger.include((sequence, change(receipt.from_body(body))) for sequence, body in numbered)


def numbered(said):
    return [(number, receipt.to_message(one, "", "").body) for number, one in enumerate(said, start=1)]


@given(some_receipts, some.data())
@settings(max_examples=300, deadline=None)
def test_receipts_folded_in_any_chunks_and_repeated_make_the_same_ledger(said, data):
    log = numbered(said)
    with opened() as at_once, opened() as in_chunks:
        include(at_once, log)
        done = 0
        while done < len(log):
            start = data.draw(some.integers(0, done))  # again from some way back, as after a crash
            end = data.draw(some.integers(done + 1, len(log)))
            include(in_chunks, log[start:end])
            done = end

        assert held(in_chunks) == held(at_once)
        assert in_chunks.sequence == at_once.sequence == len(log)


class Sink:
    """What events.py and contacts.py do to its ledger and says, in its order; may be cut off anywhere."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.said: list[Receipt] = []
        self.calls = 0
        self.maybe_at_brevo: set[str] = set()

    def tell(self, outcome, ids, batch="", **more) -> None:
        self.said.append(
            Receipt(outcome=outcome, kind=more.pop("kind", "event.track"), ids=ids, batch=batch, **more)
        )
        self.ledger.said(len(self.said))

    def play(self, how: str, ids: tuple[str, ...], told: Told) -> None:
        if how == "upsert":
            self.ledger.deliver(told)
            self.tell("delivered", ("u",), kind="contact.upsert", told=told)
            return
        if how == "forget":
            self.ledger.erase(told.ext_id, told.position, "d")
            self.tell("delivered", ("d",), kind="contact.delete", told=told)
            return
        states = self.ledger.states(ids)
        if how == "look":
            found = tuple(id_ for id_ in ids if states.get(id_) in ("sending", "in_doubt"))
            if found:
                self.ledger.write(found, "delivered")
                self.tell("delivered", found)
            return
        ids = tuple(id_ for id_ in ids if states.get(id_) in (None, "rejected"))
        if not ids:
            return
        self.calls += 1
        batch = f"call-{self.calls}"
        self.ledger.write(ids, "sending", batch)
        self.tell("sending", ids, batch)
        match how:
            case "deliver":
                self.maybe_at_brevo |= set(ids)
                self.ledger.write(ids, "delivered", batch)
                self.tell("delivered", ids, batch)
            case "part":
                self.maybe_at_brevo |= set(ids[1:])
                if ids[1:]:
                    self.ledger.write(ids[1:], "delivered", batch)
                    self.tell("delivered", ids[1:], batch)
                self.ledger.write(ids[:1], "rejected")
                self.tell("rejected", ids[:1])
            case "refuse":
                self.ledger.forget(ids)
                self.tell("unsent", ids, batch)
            case "fail":
                self.maybe_at_brevo |= set(ids)
                self.ledger.write(ids, "in_doubt", batch)
                self.tell("in_doubt", ids, batch)
            case "give up":
                self.maybe_at_brevo |= set(ids)
                self.ledger.write(ids, "in_doubt", batch)
                self.tell("in_doubt", ids, batch)
                self.ledger.write(ids, "unresolved")
                self.tell("unresolved", ids)
            case "vanish":  # killed while the call was open
                self.maybe_at_brevo |= set(ids)


@given(PLAY, some.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_a_ledger_made_of_the_receipts_is_the_one_the_sink_had(play, back):
    with opened() as lived, opened() as rebuilt:
        sink = Sink(lived)
        for one in play:
            sink.play(*one)
        before = held(lived)

        include(rebuilt, numbered(sink.said))
        lived.sequence = max(0, len(sink.said) - back)  # it had not written how far it was
        include(lived, numbered(sink.said))

        assert held(rebuilt) == before
        assert held(lived) == before


@given(PLAY, some.data())
@settings(max_examples=300, deadline=None)
def test_wherever_the_receipts_end_no_event_that_may_be_at_brevo_is_unknown(play, data):
    with opened() as lived:
        sink = Sink(lived)
        for one in play:
            sink.play(*one)
    said = sink.said
    cut = data.draw(some.integers(0, len(said)))
    with opened() as rebuilt:
        include(rebuilt, numbered(said[:cut]))
        called = {id_ for one in said[:cut] if one.outcome == "sending" for id_ in one.ids}
        states = rebuilt.states(IDS)

        for id_ in called & sink.maybe_at_brevo:
            last = [one.outcome for one in said[:cut] if id_ in one.ids][-1]
            assert states.get(id_) in ("sending", "in_doubt", "delivered", "unresolved") or last in (
                "unsent",
                "rejected",
            )
