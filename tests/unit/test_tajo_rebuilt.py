"""What a rebuild shall tell: kept in a file, and read again at a cost that grows with it and no faster."""

from shared.command import ContactUpsert, EventTrack
from tajo.rebuilt import Rebuilt

EACH = 5  # events of a customer


def filled(path, customers: int) -> Rebuilt:
    one = Rebuilt(path)
    contacts = [
        ContactUpsert(id=f"{n}", ext_id=f"tajo-{n}", version=1, mapping="m") for n in range(customers)
    ]
    events = [
        EventTrack(id=f"WT{n}.{m}", ext_id=f"tajo-{n}", name="ASKED", time="2026-11-20T10:00:00.000Z")
        for n in range(customers) for m in range(EACH)
    ]  # fmt: skip
    one.put(contacts, events)
    one.said_events(event.id for event in events)
    return one


def steps(rebuilt: Rebuilt) -> int:
    """What SQLite does, in hundreds, until all that is expected is read."""
    taken: list[None] = []
    rebuilt._sql.set_progress_handler(lambda: taken.append(None), 100)
    assert all(len(one.events) == EACH for one in rebuilt.expected())
    rebuilt.close()
    return len(taken)


def test_four_times_the_customers_are_not_sixteen_times_the_work(tmp_path):
    assert steps(filled(tmp_path / "many", 400)) < 6 * steps(filled(tmp_path / "few", 100))
