"""A connection to the broker for one command: tried for some seconds, closed in the end."""

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import nats
from nats.aio.client import Client

TRIES = 5  # 0.2 s apart; whoever asks is a person, and can ask again

CANCEL_AGAIN_S = 5.0

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Until it is done.  SIGINT and SIGTERM end it: what it does then is let be done, and KeyboardInterrupt raised.

    What goes on all the same is cancelled again: nats-py swallows a cancellation now and then (shared/service.py).
    """

    async def stoppable() -> T:
        task, loop = asyncio.create_task(work), asyncio.get_running_loop()

        def stop() -> None:
            if not task.done():
                task.cancel()
                loop.call_later(CANCEL_AGAIN_S, stop)

        def once() -> None:  # whoever is impatient must not interrupt the stopping
            if not task.cancelling():
                stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, once)
        return await task

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """A connection.  Raises nats' errors and OSError."""
    connection = await nats.connect(
        url,
        connect_timeout=5,
        max_reconnect_attempts=TRIES,
        reconnect_time_wait=0.2,  # seconds
        error_cb=_said_at_the_end,
    )
    try:
        yield connection
    finally:
        await connection.close()


async def _said_at_the_end(_error: Exception) -> None:
    """nats-py's own would print a traceback for each try."""
