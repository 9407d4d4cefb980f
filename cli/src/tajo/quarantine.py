"""`tajo quarantine`: what was refused for its signature, and taking back what was refused by mistake."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import nats
from nats.aio.client import Client

from ingest.judge import Heard, Judge
from ingest.quarantine import Rechecked, held
from ingest.quarantine import recheck as recheck_all
from shared import bus

_SIDS = re.compile(rb"\b(?:EV|WT|WR|CH|KD|CA)[0-9a-f]{32}\b")
SIDS_MAX = 2  # of one request, shown


async def listed(url: str) -> list[Heard]:
    """What is in quarantine, oldest first.  Raises nats' errors and OSError."""
    async with _connected(url) as connection:
        return [heard async for _, heard in held(connection.jetstream())]


async def recheck(url: str, judge: Judge) -> Rechecked:
    """Take back what is rightly signed.  Raises NotPublishedError, nats' errors and OSError."""
    async with _connected(url) as connection:
        return await recheck_all(connection.jetstream(), partial(bus.publish, connection), judge)


def sids(heard: Heard) -> str:
    """The first sids it names: they say what it is about, and nothing of whom."""
    found = dict.fromkeys(match[0].decode() for match in _SIDS.finditer(heard.body or heard.query))
    return " ".join(list(found)[:SIDS_MAX])


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Client]:
    connection = await nats.connect(
        url, connect_timeout=5, max_reconnect_attempts=5, reconnect_time_wait=0.2, error_cb=_said_at_the_end
    )
    try:
        yield connection
    finally:
        await connection.close()


async def _said_at_the_end(_error: Exception) -> None:
    """nats-py's own would print a traceback for each try."""
