"""A connection to the broker for one command: a few tries, then its error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """The connection, closed at the end.  Raises nats.errors.Error and OSError."""
    connection = await nats.connect(
        url, connect_timeout=5, max_reconnect_attempts=5, reconnect_time_wait=0.2, error_cb=_said_at_the_end
    )
    try:
        yield connection
    finally:
        await connection.close()


async def _said_at_the_end(_error: Exception) -> None:
    """nats-py's own would print a traceback for each try."""
