"""What replays have aside, when somebody is forgotten: books that are not in force, plans, and who asked for them.

All of it was made of a log that held them, and each can be made anew; so all of it goes, whomever it is about.
"""

import asyncio

import msgspec
from nats.aio.client import Client

from mapper.shelf import Shelf
from shared import erasure, kv, replay
from shared.erasure import Count
from shared.replay import Replay
from shared.topology import PLANS, REPLAYS

WHY = "somebody was forgotten since: ask for it again"


async def drop_aside(connection: Client, shelf: Shelf) -> tuple[Count, ...]:
    """Return how many there were.  Raises nats' errors.

    A purged stream has new files: what was overwritten in it is gone, too.  A crash in between loses what a replay was
    asked for, and nothing that was done.
    """
    replays = await _replays(connection)
    jetstream = connection.jetstream(timeout=erasure.TIMEOUT_S)
    plans = f"OBJ_{PLANS.name}"
    pieces = (await jetstream.stream_info(plans)).state.messages
    for stream in (plans, f"KV_{REPLAYS.name}"):
        await jetstream.purge_stream(stream)
    bucket = await jetstream.key_value(REPLAYS.name)
    for one in replays:
        stays = one.ended or one.asked.id == shelf.in_force.stem
        await bucket.put(one.asked.id, msgspec.json.encode(_bare(one, stays=stays)))
    books = await asyncio.to_thread(shelf.clear)
    counts = (("replays", len(replays)), ("plans: pieces", pieces), ("books aside", books))
    return tuple(Count(where=where, found=n, erased=n) for where, n in counts)


async def _replays(connection: Client) -> list[Replay]:
    bucket = await connection.jetstream(timeout=erasure.TIMEOUT_S).key_value(REPLAYS.name)
    found = [(await replay.read(bucket, key))[1] for key in await kv.keys(connection, REPLAYS.name)]
    return [one for one in found if one]


def _bare(one: Replay, *, stays: bool) -> Replay:
    """Without whom and what it selected; one that was under way is dropped, unless its book is in force already."""
    asked = replay.Asked(id=one.asked.id, mapping=one.asked.mapping, at_ms=one.asked.at_ms)
    if stays:
        return msgspec.structs.replace(one, asked=asked)
    return msgspec.structs.replace(one, asked=asked, state="dropped", why=WHY)
