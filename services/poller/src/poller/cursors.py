"""Up to when each resource was read, in the bucket `cursors`: epoch milliseconds, which never go back."""

import nats.errors
import nats.js.errors
from faststream.nats import NatsBroker
from nats.js.kv import KeyValue

from shared import kv
from shared.bus import client
from shared.publish import NotPublishedError
from shared.topology import CURSORS

TIMEOUT_S = 2.0


class Cursors:
    """The bucket.  Each call raises NotPublishedError where the broker does not answer."""

    def __init__(self, broker: NatsBroker) -> None:
        self._broker = broker

    async def get(self, name: str) -> int | None:
        """Where a resource stands; None where it was never read."""
        try:
            _, value = await kv.read(await self._bucket(), name)
        except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
            raise NotPublishedError(f"{type(error).__name__} from NATS") from error
        return int(value) if value else None

    async def move(self, name: str, to_ms: int, *, back: bool = False) -> None:
        """All of a resource up to then is in the log; `back` says that no more is."""
        try:
            bucket = await self._bucket()
            revision, value = await kv.read(bucket, name)
            if back or to_ms > int(value or b"0"):
                await bucket.update(name, str(to_ms).encode(), last=revision)
        except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
            raise NotPublishedError(f"{type(error).__name__} from NATS") from error

    async def _bucket(self) -> KeyValue:
        connection = client(self._broker)
        if connection is None:
            raise NotPublishedError("no connection to NATS")
        return await connection.jetstream(timeout=TIMEOUT_S).key_value(CURSORS.name)
