"""A command that is told to stop stops, whatever its work does with that."""

import asyncio
import os
import signal

import pytest

from tajo.broker import run


async def told_to_stop(*, gives_up: bool) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        if gives_up:
            raise
    return "done all the same"


@pytest.mark.parametrize("gives_up", [True, False])
def test_who_is_interrupted_hears_of_it_even_where_the_work_ends(gives_up):
    with pytest.raises(KeyboardInterrupt):
        run(told_to_stop(gives_up=gives_up))


def test_work_that_nobody_stops_gives_its_result():
    async def work() -> int:
        return 7

    assert run(work()) == 7
