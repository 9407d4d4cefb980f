"""`tajo customer show`, on a book that a mapping has written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mapper.book import Book
from mapper.story import given, tell
from shared.connector_file import load

ROOT = Path(__file__).parent.parent.parent
STORY = ROOT / "tests/golden/voice_handled"


@pytest.fixture
def data_dir(tmp_path):
    (tmp_path / "mapper").mkdir()
    book = Book(tmp_path / "mapper/book.sqlite")
    with book:
        tell(load(ROOT / "config/tajo.yaml"), given((STORY / "given.ndjson").read_bytes()), into=book)
    book.close()
    return tmp_path


def show(whom: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tajo", "customer", "show", whom],
        env={**os.environ, "TAJO_DATA_DIR": str(data_dir), "COLUMNS": "200"},
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "whom", ["Maria.Lopez@example.com", "+15005550010", "WT0795f31e7aca4f78bfe0a7ed4351cf09"]
)
def test_a_customer_is_explained_by_mail_phone_and_sid(data_dir, whom):
    done = show(whom, data_dir)

    assert done.returncode == 0, done.stderr
    for said in (
        "email maria.lopez@example.com, first seen 2025-10-09", "phone +15005550010",
        "SUPPORT_TICKET_COUNT", "from task-queue.entered to reservation.accepted",
        "WT0795f31e7aca4f78bfe0a7ed4351cf09/task.completed",
    ):  # fmt: skip
        assert said in done.stdout


def test_nobody_and_no_book_are_said_so(data_dir, tmp_path):
    nobody, nowhere = show("nobody@example.com", data_dir), show("x", tmp_path / "elsewhere")

    assert (nobody.returncode, nowhere.returncode) == (1, 1)
    assert "the book knows nobody by that" in nobody.stderr
    assert "set TAJO_DATA_DIR" in nowhere.stderr
