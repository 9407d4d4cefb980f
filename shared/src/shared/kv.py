"""Reading a key of a bucket so that it can be written by compare-and-swap, and which keys there are."""

import msgspec
import nats.js.errors
from nats.aio.client import Client
from nats.js.kv import KeyValue

TIMEOUT_S = 5.0  # of each request


async def read(bucket: KeyValue, key: str) -> tuple[int, bytes]:
    """Revision and value: 0 and nothing where it was never written, nothing where it was deleted.  Raises nats' errors."""
    try:
        entry = await bucket.get(key)
    except nats.js.errors.KeyNotFoundError as error:
        return (error.entry.revision or 0 if error.entry else 0), b""
    return entry.revision or 0, entry.value or b""


async def keys(connection: Client, bucket: str) -> list[str]:
    """All keys of a bucket that were written once, deleted ones too.  Raises nats' errors.

    Not nats-py's own: its watcher says on a busy machine that there is nothing, before it has looked.
    """
    before = f"$KV.{bucket}."
    asked = msgspec.json.encode({"subjects_filter": f"{before}>"})
    answer = await connection.request(f"$JS.API.STREAM.INFO.KV_{bucket}", asked, timeout=TIMEOUT_S)
    state = msgspec.json.decode(answer.data).get("state", {})
    return [subject.removeprefix(before) for subject in state.get("subjects") or ()]
