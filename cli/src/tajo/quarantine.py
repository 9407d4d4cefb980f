"""`tajo quarantine`: what was refused for its signature, and taking back what was refused by mistake."""

import re
from functools import partial

from msgspec import Struct

from ingest.judge import Heard, Judge
from ingest.quarantine import Rechecked, held
from ingest.quarantine import recheck as recheck_all
from shared.event import rfc3339
from shared.publish import publish
from tajo.broker import connected

_SIDS = re.compile(rb"\b(?:EV|WT|WR|CH|KD|CA)[0-9a-f]{32}\b")
SIDS_MAX = 2  # of one request, shown


class Line(Struct, frozen=True):
    """A request in quarantine, as far as it is shown."""

    received: str
    route: str
    method: str
    bytes: int
    sids: list[str]


async def listed(url: str) -> list[Heard]:
    """What is in quarantine, oldest first.  Raises nats' errors and OSError."""
    async with connected(url) as connection:
        return [heard async for _, heard in held(connection.jetstream())]


async def recheck(url: str, judge: Judge) -> Rechecked:
    """Take back what is rightly signed.  Raises NotPublishedError, nats' errors and OSError."""
    async with connected(url) as connection:
        return await recheck_all(connection.jetstream(), partial(publish, connection), judge)


def line(heard: Heard) -> Line:
    """What may be shown of it: the first sids say what it is about, and nothing of whom."""
    found = dict.fromkeys(match[0].decode() for match in _SIDS.finditer(heard.body or heard.query))
    return Line(
        rfc3339(heard.heard_ms),
        heard.path,
        heard.method,
        len(heard.body or heard.query),
        list(found)[:SIDS_MAX],
    )
