"""Counting the book beside the work."""

import asyncio
from pathlib import Path

import pytest

from mapper.book import Book, Size
from mapper.story import given, tell
from mapper.tally import Tally
from shared.connector_file import load

ROOT = Path(__file__).parent.parent.parent
STORIES = ("voice_handled", "webchat_known_by_mail")


@pytest.fixture
def counting(tmp_path):
    return Tally(tmp_path / "book.sqlite")


async def counted(tally: Tally) -> Size:
    task = asyncio.create_task(tally.count())
    try:
        async with asyncio.timeout(30):
            while tally.size is None:  # noqa: ASYNC110 - a thread sets it
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
    return tally.size


async def test_the_book_is_counted_while_a_transaction_is_open_and_only_what_is_committed(tmp_path, counting):
    book = Book(tmp_path / "book.sqlite")
    with book:
        tell(load(ROOT / "config/tajo.yaml"), given(story(STORIES[0])), into=book)
    with book:
        tell(load(ROOT / "config/tajo.yaml"), given(story(STORIES[1])), into=book)
        first = await counted(counting)
    counting.size = None
    second = await counted(counting)
    book.close()

    assert first == Size(interactions=1, customers=1, agents=1)
    assert second == Size(interactions=2, customers=2, agents=1)  # the same took both


async def test_a_book_that_cannot_be_read_yet_is_counted_once_it_can(tmp_path):
    (tmp_path / "book.sqlite").write_bytes(
        b"no database, and longer than the hundred bytes of its header" * 3
    )
    tally = Tally(tmp_path / "book.sqlite")
    task = asyncio.create_task(tally.count())
    while not tally.failed:  # noqa: ASYNC110 - a thread finds out
        await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()

    (tmp_path / "book.sqlite").unlink()
    Book(tmp_path / "book.sqlite").close()

    assert await counted(tally) == Size(0, 0, 0)
    assert not tally.failed


def story(name: str) -> bytes:
    return (ROOT / f"tests/golden/{name}/given.ndjson").read_bytes()
