"""Which book is in force changes in one step: whoever is killed anywhere leaves the old one or the new one."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mapper.shelf import BOOKS_MAX, FIRST, Shelf

WORKER = """
import os, pathlib, signal, sys
from mapper.shelf import Shelf
shelf, left = Shelf(pathlib.Path(sys.argv[1])), int(sys.argv[3])
def hook(event, _arguments):
    global left
    if event in ("open", "os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "sqlite3.connect"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
shelf.open() if sys.argv[2] == "open" else shelf.put_in_force(sys.argv[2])
"""


def write(path: Path, text: str) -> None:
    """A book whose -wal was not folded in: the process that had it was killed."""
    script = """
import os, signal, sqlite3, sys
sql = sqlite3.connect(sys.argv[1], isolation_level=None)
sql.execute("PRAGMA journal_mode = WAL")
sql.execute("CREATE TABLE said (text TEXT)")
sql.execute("INSERT INTO said VALUES (?)", (sys.argv[2],))
os.kill(os.getpid(), signal.SIGKILL)
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", script, str(path), text], check=False)
    assert path.with_name(f"{path.name}-wal").stat().st_size


def read(path: Path) -> str:
    """What a book says; an empty text where it is new."""
    with closing(sqlite3.connect(path)) as sql:
        try:
            return sql.execute("SELECT text FROM said").fetchone()[0]
        except sqlite3.OperationalError:
            return ""


def killed_at_each_step(
    folder: Path, word: str, prepare: Callable[[Path], None]
) -> Iterator[tuple[bool, Shelf]]:
    """A folder as `prepare` makes it, after a process was killed before one of its steps: each of them, then none."""
    for step in range(1, 50):
        here = folder / f"{word}-{step}"
        here.mkdir()
        prepare(here)
        done = subprocess.run([sys.executable, "-c", WORKER, str(here), word, str(step)], check=False)
        assert done.returncode in (0, -signal.SIGKILL)
        yield done.returncode == 0, Shelf(here)
        if not done.returncode:
            assert step > 3
            return
    pytest.fail("it never ends")


def in_force(folder: Path, name: str) -> Shelf:
    shelf = Shelf(folder)
    shelf.open()
    write(shelf.path(FIRST), "first")
    write(shelf.path("r1"), "of r1")
    if name != FIRST:
        shelf.put_in_force(name)
    return shelf


def test_a_plain_file_of_an_older_version_is_moved_in_with_its_wal(tmp_path):
    for _, shelf in killed_at_each_step(tmp_path, "open", lambda here: write(here / "book.sqlite", "old")):
        assert read(shelf.link) == "old"
        assert read(shelf.open()) == "old"
        assert (shelf.link.is_symlink(), shelf.in_force) == (True, shelf.path(FIRST))


def test_a_swap_leaves_the_old_book_in_force_or_the_new_one(tmp_path):
    found = []
    for done, shelf in killed_at_each_step(tmp_path, "r1", lambda here: in_force(here, FIRST) and None):
        found.append(read(shelf.open()))
        assert found[-1] in ("first", "of r1")
        assert not done or found[-1] == "of r1"
        shelf.put_in_force("r1")  # what is left stands in nobody's way
        assert read(shelf.in_force) == "of r1"
    assert found[0] == "first"


def test_where_the_link_is_gone_a_book_is_begun_anew_that_meets_no_old_one(tmp_path):
    def without_link(here: Path) -> None:
        in_force(here, "r1").link.unlink()

    for _, shelf in killed_at_each_step(tmp_path, "open", without_link):
        assert read(shelf.open()) == ""
        assert shelf.in_force == shelf.path(FIRST)
        assert read(shelf.path("r1")) == "of r1"  # a replay that was applied; it is dropped as any other


def test_the_book_in_force_is_never_dropped(tmp_path):
    shelf = in_force(tmp_path, "r1")

    assert (shelf.drop("r1"), shelf.clear()) == (False, 1)

    assert (read(shelf.in_force), shelf.path(FIRST).exists()) == ("of r1", False)
    assert not list(tmp_path.rglob(f"{FIRST}*"))


def test_the_oldest_books_make_room_and_neither_the_one_in_force_nor_the_one_asked_for(tmp_path):
    shelf = in_force(tmp_path, "r1")
    names = [f"p{number}" for number in range(BOOKS_MAX + 1)]
    for age, name in enumerate(["r1", "p0", FIRST, *names[1:]]):
        shelf.path(name).touch()
        os.utime(shelf.path(name), (age, age))

    gone = shelf.make_room(but="p0")

    kept = {path.stem for path in shelf.path("x").parent.glob("*.sqlite")}
    assert kept == {"r1", "p0", *names[-(BOOKS_MAX - 1) :]}
    assert set(gone) == {FIRST, *names[1:]} - kept
