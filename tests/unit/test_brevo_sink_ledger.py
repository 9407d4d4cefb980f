"""The ledger: what it is told stays told, and what was being sent when it was closed is in doubt."""

import stat

from brevo_sink.ledger import Ledger
from brevo_sink.preflight import missing
from shared.connector_file import parse
from shared.receipt import Told


def test_what_was_sending_is_in_doubt_after_a_start_and_the_rest_is_as_it_was(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.write(["a", "b", "c"], "sending", "batch-1")
    ledger.write(["b"], "delivered", "batch-1")
    ledger.forget(["c"])
    ledger.deliver(Told(ext_id="tajo-x", version=7, position=3, mapping="m"))
    ledger.said(12)
    ledger.close()

    again = Ledger(tmp_path / "ledger.sqlite")
    again.doubt()

    assert again.states(["a", "b", "c", "d"]) == {"a": "in_doubt", "b": "delivered"}
    assert again.delivered("tajo-x") == (7, 3, "m")
    assert again.sequence == 12
    assert again.has("tajo-x")
    assert not again.has("tajo-y")
    again.close()


def test_many_ids_are_asked_for_at_once():
    ledger = Ledger(None)
    ids = [f"id-{number}" for number in range(12_000)]
    ledger.write(ids, "delivered")

    assert len(ledger.states(ids)) == 12_000
    ledger.close()


def test_the_preflight_makes_what_is_missing_and_names_what_clashes():
    config = parse(
        "field_mapping: {attributes.email: email, attributes.phone: SMS, tier: TIER, avg_wait_time: WAIT,"
        " last_conversation_date: LAST, customers.kind: KIND}"
    )
    body = (
        b'{"attributes":[{"name":"LAST","category":"normal","type":"text"},{"name":"KIND","category":"category","enumeration":[]},'
        b'{"name":"WAIT","category":"calculated"},{"name":"TIER","category":"normal","type":"text"}]}'
    )

    create, clashes = missing(config.fields, body)

    assert create == {"WAIT": "float"}
    assert clashes == ["attribute LAST is text at Brevo and must be date"]


def test_a_contact_that_was_renamed_is_known_by_its_new_name_however_often_it_was(tmp_path):
    ledger = Ledger(None)
    ledger.deliver(Told(ext_id="tajo-a", version=7, position=3, mapping="m", name="crm-1"))

    ledger.relink("tajo-a", "tajo-b", 4, "first")
    ledger.relink("tajo-b", "tajo-c", 5, "second")

    assert {one: ledger.whom(f"tajo-{one}", 9)[0] for one in "abc"} == dict.fromkeys("abc", "tajo-c")
    assert ledger.has("tajo-c")
    assert not ledger.has("tajo-a")
    assert ledger.foreign_name("tajo-c") == "crm-1"
    assert ledger.states(["first", "second"]) == {"first": "delivered", "second": "delivered"}
    ledger.relink("tajo-c", "tajo-a", 6, "back")
    assert {one: ledger.whom(f"tajo-{one}", 9)[0] for one in "abc"} == dict.fromkeys("abc", "tajo-a")
    ledger.close()


def test_a_name_means_whoever_had_it_at_the_time_and_what_was_erased_since_stays_so():
    ledger = Ledger(None)
    ledger.relink("a", "b", 10, "1")
    ledger.erase("b", 20, "2")  # and b is made anew by what is said later
    ledger.relink("c", "a", 30, "3")
    ledger.relink("b", "d", 40, "4")
    ledger.erase("a", 50, "5")

    assert ledger.whom("a", 5) == ledger.whom("b", 15) == ledger.whom("a", 15) == ("d", True)
    assert ledger.whom("a", 25) == ledger.whom("b", 25) == ledger.whom("b", 45) == ("d", False)
    assert ledger.whom("c", 25) == ledger.whom("a", 35) == ("a", True)
    assert ledger.whom("a", 60) == ledger.whom("c", 60) == ("a", False)
    assert ledger.whom("z", 5) == ("z", False)
    assert ledger.renamed(["z", "d"], after=35)
    assert not ledger.renamed(["z", "d"], after=40)
    ledger.close()


def test_a_ledger_from_before_positions_were_kept_means_by_each_name_what_it_meant(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for table, column, rows in (
        ("alias", "name TEXT", [("a", "c"), ("b", "c")]),
        ("gone", "position INTEGER", [("c", 20)]),
    ):
        ledger._sql.execute(f"CREATE TABLE {table} (ext_id TEXT PRIMARY KEY, {column})")
        ledger._sql.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows)
    ledger.close()

    ledger = Ledger(tmp_path / "ledger.sqlite")

    assert ledger.whom("a", 30) == ledger.whom("b", 30) == ledger.whom("c", 30) == ("c", False)
    assert ledger.whom("a", 20) == ledger.whom("c", 20) == ("c", True)
    ledger.relink("x", "a", 40, "1")
    assert (ledger.whom("a", 30)[0], ledger.whom("a", 50)[0]) == ("c", "a")
    ledger.close()


def test_receipts_that_say_no_position_leave_each_name_with_the_contact_that_had_it_last():
    ledger = Ledger(None)
    for was, now in (("a", "b"), ("b", "a"), ("a", "c"), ("d", "a")):
        ledger.relink(was, now, 0, f"{was}/{now}")

    assert {one: ledger.whom(one, 9)[0] for one in "abcd"} == {"a": "a", "b": "c", "c": "c", "d": "a"}
    ledger.close()


def test_an_old_ledger_is_compacted_when_it_is_opened_and_says_the_same(tmp_path):
    path, ids = tmp_path / "ledger.sqlite", [f"WT{number:032d}/task.completed" for number in range(100_000)]
    ledger = Ledger(path)
    call = "1234567-1234767-200-0123abcd"
    ledger.write(ids, "sending", call)
    ledger._sql.execute("UPDATE event SET state = 3")
    ledger.write(["open"], "sending", call)
    ledger._sql.execute("ALTER TABLE contact DROP COLUMN identifiers")
    ledger._sql.execute("INSERT INTO contact VALUES ('tajo-x', 7, 3, 'm')")
    ledger._sql.execute("PRAGMA user_version = 0")
    ledger.close()
    before = path.stat().st_size

    again = Ledger(path)

    assert again.states([*ids[:3], "open"]) == {**dict.fromkeys(ids[:3], "delivered"), "open": "sending"}
    assert again._sql.execute("SELECT DISTINCT batch FROM event WHERE id != 'open'").fetchall() == [("",)]
    assert again._sql.execute("SELECT batch FROM event WHERE id = 'open'").fetchall() == [(call,)]
    assert (again.delivered("tajo-x"), again.identifiers("tajo-x")) == ((7, 3, "m"), "")
    again.close()
    assert path.stat().st_size < 0.75 * before


def test_what_was_forgotten_gives_its_room_back_at_the_next_start(tmp_path):
    path, ids = tmp_path / "ledger.sqlite", [f"WT{number:032d}/task.completed" for number in range(150_000)]
    ledger = Ledger(path)
    ledger.write(ids, "sending", "b")
    ledger.forget(ids)
    ledger.close()
    before = path.stat().st_size

    Ledger(path).close()

    assert path.stat().st_size < 0.1 * before


def test_nobody_but_its_owner_reads_the_file_or_what_stands_beside_it(tmp_path):
    (tmp_path / "ledger.sqlite").touch(0o644)  # as one was left by an earlier version
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.write(["a"], "sending")

    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert len(list(tmp_path.iterdir())) == 3
    ledger.close()
