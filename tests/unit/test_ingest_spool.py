"""The spool's file: first in first out, a limit in bytes, one process at a time, and what a killed one left."""

import sqlite3

import pytest

from ingest.spool import Spool, SpoolError
from shared.message import MSG_ID, Message


def message(number: int, size: int = 10) -> Message:
    return Message("twilio.AC1.01.taskrouter.task.created", b"x" * size, {MSG_ID: str(number)})


async def held(spool: Spool) -> list[int]:
    """Everything in it, in order; it is empty then."""
    numbers = []
    while group := await spool.oldest():
        numbers += [int(one.headers[MSG_ID]) for one in group.messages]
        await spool.forget(group)
    return numbers


async def test_what_goes_in_first_comes_out_first_in_groups_that_fit_an_atomic_batch(tmp_path):
    spool = Spool(tmp_path, bytes_max=2**26)
    for first in range(0, 1200, 100):
        await spool.append([message(number) for number in range(first, first + 100)])

    group = await spool.oldest()
    assert len(group.messages) == 500
    assert spool.messages == 1200
    assert await held(spool) == list(range(1200))
    assert spool.messages == 0
    await spool.close()


async def test_what_is_not_forgotten_is_there_again_after_a_start(tmp_path):
    spool = Spool(tmp_path, bytes_max=2**26)
    await spool.append([message(1)])
    await spool.append([message(2)])
    await spool.oldest()
    await spool.close()

    again = Spool(tmp_path, bytes_max=2**26)

    assert again.messages == 2
    assert await held(again) == [1, 2]
    await again.close()


async def test_full_it_takes_nothing_and_says_so_and_takes_again_when_there_is_room(tmp_path):
    spool = Spool(tmp_path, bytes_max=2**20)
    taken = 15
    for number in range(taken):
        await spool.append([message(number, 50_000)])
    with pytest.raises(SpoolError, match="full"):
        await spool.append([message(taken, 300_000)])
    assert "full" in spool.why

    assert await held(spool) == list(range(taken))
    assert await spool.usable()
    await spool.append([message(0, 50_000)])
    await spool.close()


async def test_emptied_it_gives_the_disk_back(tmp_path):
    spool = Spool(tmp_path, bytes_max=2**26)
    for number in range(40):
        await spool.append([message(number, 2**20)])
    await held(spool)
    await spool.close()

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2**20


async def test_two_on_one_folder_never_share_a_file_and_what_one_left_is_adopted_by_the_next(tmp_path):
    one, two = Spool(tmp_path, bytes_max=2**26), Spool(tmp_path, bytes_max=2**26)
    await one.append([message(1)])
    await two.append([message(2)])
    assert (one.messages, two.messages) == (1, 1)
    await one.close()
    await two.close()

    three = Spool(tmp_path, bytes_max=2**26)
    assert three.messages == 2
    await three.append([message(3)])
    assert await held(three) == [2, 1, 3]
    four = Spool(tmp_path, bytes_max=2**26)  # takes the file that was adopted, drained and let go
    assert sorted(path.name for path in tmp_path.glob("*.sqlite")) == ["spool-1.sqlite", "spool-2.sqlite"]
    await three.close()
    await four.close()


async def test_a_file_that_is_no_database_is_left_alone_and_another_is_taken(tmp_path):
    (tmp_path / "spool-1.sqlite").write_bytes(b"not a database" * 1000)

    spool = Spool(tmp_path, bytes_max=2**26)
    await spool.append([message(1)])
    await spool.close()

    assert (tmp_path / "spool-1.sqlite").read_bytes() == b"not a database" * 1000
    assert sqlite3.connect(tmp_path / "spool-2.sqlite").execute("SELECT count FROM flight").fetchall() == [
        (1,)
    ]


async def test_a_folder_that_cannot_be_made_is_said_and_tried_again(tmp_path):
    (tmp_path / "ingest").write_text("a file is in the way")
    spool = Spool(tmp_path / "ingest", bytes_max=2**26)
    assert "exists" in spool.why

    with pytest.raises(SpoolError):
        await spool.append([message(1)])
    (tmp_path / "ingest").unlink()
    await spool.append([message(1)])

    assert spool.why == ""
    await spool.close()
