"""Reading a key of a bucket so that it can be written by compare-and-swap."""

import nats.js.errors
from nats.js.kv import KeyValue


async def read(bucket: KeyValue, key: str) -> tuple[int, bytes]:
    """Revision and value: 0 and nothing where it was never written, nothing where it was deleted.  Raises nats' errors."""
    try:
        entry = await bucket.get(key)
    except nats.js.errors.KeyNotFoundError as error:
        return (error.entry.revision or 0 if error.entry else 0), b""
    return entry.revision or 0, entry.value or b""
