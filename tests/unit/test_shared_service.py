"""How work is ended."""

import asyncio

from shared.service import cancel


async def test_work_that_swallows_a_cancellation_is_cancelled_again():
    begun, over = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        begun.set()
        try:
            await over.wait()
        except asyncio.CancelledError:  # as nats-py does in the midst of a flush
            await over.wait()

    async def broken() -> None:
        raise ValueError("broken")

    work = [asyncio.create_task(stubborn()), asyncio.create_task(broken())]
    await begun.wait()

    nothing, error = await cancel(work)

    assert nothing is None
    assert isinstance(error, ValueError)
    assert work[0].cancelled()


async def test_nothing_to_end_is_ended():
    assert await cancel([]) == []
