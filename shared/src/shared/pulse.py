"""Saying heartbeats: best effort, beside the work.  It never waits for the broker, never raises, and delays nothing."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version

import msgspec
import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker
from msgspec import Struct

from shared.bus import client
from shared.event import rfc3339
from shared.heartbeat import BEAT_S, Heartbeat, key, to_value
from shared.lease import Lease
from shared.topology import STATUS
from shared.vitals import State

LOOK_S = 1.0  # between looks whether anything has changed
TIMEOUT_S = 1.0  # of each request

log = structlog.get_logger()


Counts = Callable[[], Struct]
"""One of the structs of shared.heartbeat.  Asked for each heartbeat, so it must be had for nothing."""


class Pulse:
    """The heartbeats of one process."""

    def __init__(
        self,
        broker: NatsBroker,
        service: str,
        *,
        state: State,
        note: Callable[[], str],
        counts: Counts,
        lease: Lease | None,
    ) -> None:
        self._broker = broker
        self._service = service
        self._state = state
        self._note = note
        self._counts = counts
        self._lease = lease
        self._process = f"{socket.gethostname()}-{os.getpid()}"
        self._version = version("tajo-shared")
        self._since = rfc3339(time.time_ns() // 1_000_000)
        self._key = ""

    async def beat(self) -> None:
        """Say how we are, every BEAT_S and whenever that changes, if the broker is there.  Ends when cancelled."""
        said, at = ("", "", ""), float("-inf")
        while True:
            try:
                beat = await self._say()
                if (beat.instance, beat.role, beat.why) != said or time.monotonic() - at >= BEAT_S:
                    await self._put(beat)
                    said, at = (beat.instance, beat.role, beat.why), time.monotonic()
            except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
                log.debug("no_heartbeat", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - whatever is wrong in counting must not end the work
                log.warning("no_heartbeat", error=type(error).__name__)
            await asyncio.sleep(LOOK_S)

    async def end(self) -> None:
        """Take back what was said: an orderly stop is no silence."""
        with suppress(nats.errors.Error, nats.js.errors.Error, OSError):
            if self._key and (connection := client(self._broker)):
                await (await connection.jetstream(timeout=TIMEOUT_S).key_value(STATUS.name)).delete(self._key)

    async def _put(self, beat: Heartbeat) -> None:
        connection = client(self._broker)
        if connection is None:
            return
        bucket = await connection.jetstream(timeout=TIMEOUT_S).key_value(STATUS.name)
        now = key(beat.service, beat.instance)
        was, self._key = self._key, now
        await bucket.put(now, to_value(beat))
        if was not in ("", now):  # the lease has given us our name
            await bucket.delete(was)

    async def _say(self) -> Heartbeat:
        role, why = await self._state()
        return Heartbeat(
            service=self._service,
            instance=(self._lease.instance if self._lease else "") or self._process,
            version=self._version,
            role=role,
            why=why,
            note=self._note() if role == "working" and not why else "",
            since=self._since,
            counts=msgspec.to_builtins(self._counts()),
        )
