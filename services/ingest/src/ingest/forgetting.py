"""Forgetting somebody: ingest's part.  Nothing of before is stored any more, and the spool holds nothing of it.

The order, and why a crash repeats: 1. the tombstone is known; 2. the spool is drained, without what it covers; 3. its
file is written anew; 4. the last form read is let go; 5. it is said that this process is done.
"""

import asyncio
import os
import socket
import time

import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client

from ingest.sources import form
from ingest.spool import Spool, SpoolError
from shared import bus, erasure
from shared.erasure import Done, Erasure, Watch
from shared.event import epoch_ms
from shared.heartbeat import no_key
from shared.message import MSG_ID, Message
from shared.tombstone import Tombstones, sids_in

LOOK_S = 0.5  # between looks whether somebody is to be forgotten
SERVICE = "ingest"

log = structlog.get_logger()


def is_forgotten(message: Message, tombstones: Tombstones) -> bool:
    """Whether a message is about somebody who was forgotten, and of before.  Pure; some 10 us where anybody was.

    A dead letter does not say when it happened, and has come now; so what it names counts.
    """
    if not tombstones:
        return False
    said = message.headers.get("ce-time", "")
    names = {message.headers[MSG_ID], message.headers.get("ce-subject", "")} | sids_in(message.body)
    return tombstones.cover(names, epoch_ms(said) if said else 0)


class Forgetting:
    """What of all erasures is this process's."""

    def __init__(self, broker: NatsBroker, spool: Spool) -> None:
        self._broker = broker
        self._spool = spool
        self._watch = Watch()
        self._done: set[str] = set()
        self._instance = no_key(f"{socket.gethostname()}-{os.getpid()}")  # as heartbeats name it

    def forgets(self, message: Message) -> bool:
        """Whether it is not to be kept."""
        return is_forgotten(message, self._watch.tombstones)

    async def forever(self) -> None:
        """Do what is asked, until cancelled."""
        while True:
            if connection := bus.client(self._broker):
                try:
                    await self._watch.look(connection)
                    for one in self._watch.all.ones.values():
                        await self._once(connection, one)
                except (nats.errors.Error, nats.js.errors.Error, OSError, SpoolError) as error:
                    log.debug("erasure_waits", error=type(error).__name__)
            await asyncio.sleep(LOOK_S)

    async def _once(self, connection: Client, one: Erasure) -> None:
        if one.tombstone is None or one.asked.id in self._done or not await self._spool.wiped():
            return
        form.cache_clear()  # which holds the last one read
        now_ms = time.time_ns() // 1_000_000
        done = Done(service=SERVICE, instance=self._instance, whole=True, at_ms=now_ms)
        await erasure.tell(connection, one.asked.id, done)
        self._done.add(one.asked.id)
