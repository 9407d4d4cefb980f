"""A connection to the broker for one command: tried for some seconds, closed in the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client

TRIES = 5  # 0.2 s apart; whoever asks is a person, and can ask again


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
