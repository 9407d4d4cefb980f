"""A lease: of several processes of one service only the one that holds it works.  The others stand by.

One key a service in the bucket `leases`, its value the holder.  Whoever writes it names the revision it saw
(compare-and-swap), so that of two who write one wins.  The holder writes it every RENEW_S.

Why no two ever hold it, with no clock compared to another's:
- the holder reads its clock, then renews, and on the answer works until that reading + LEASE_S - MARGIN_S;
- another takes a lease only LEASE_S after it first saw the revision it swaps, which is after that revision was
  written, which is after the holder read its clock.  A renewal in between is another revision, and the swap fails.
So the holder has stopped MARGIN_S before another can begin, as long as no clock runs a fifth faster than another.
The clock counts while the process is stopped and the machine sleeps.  The broker's clock has no part in it.

A released lease, one never held, and one's own are taken at once.  One's own: a process that was killed and started
again.  The identity is the data directory's, and a lock on a file there, which the kernel lets go when a process
dies, sees to it that two processes never have the same.  A copy of the directory is another identity.
"""

import asyncio
import fcntl
import hashlib
import os
import secrets
import socket
import time
from pathlib import Path

import nats.errors
import nats.js.errors
import structlog
from faststream.nats import NatsBroker

from shared import kv
from shared.bus import client
from shared.topology import LEASES

LEASE_S = 10.0  # a killed holder is followed after this and LOOK_S
MARGIN_S = 2.0  # for clocks that run unequally, and for what was begun just before
RENEW_S = 2.0  # four tries, before it is over
LOOK_S = 0.5  # between looks of those who stand by, and between tries while the broker is away
TIMEOUT_S = 1.0  # of each request

log = structlog.get_logger()


def now_s() -> float:
    """Seconds on a clock that is never set, and where the system has one, counts while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """What one process has to do with the lease of its service."""

    def __init__(self, broker: NatsBroker, service: str, folder: Path) -> None:
        """`folder` is the service's own, and makes the identity."""
        self._broker = broker
        self._service = service
        self._folder = folder
        self._file = -1  # open, and locked, until the process ends
        self._until = 0.0
        self._seen, self._since = -1, 0.0  # the revision seen last, and when first
        self.instance = ""
        self.other = False  # somebody else was the holder when we looked last

    def held(self) -> bool:
        """Whether we may act just now.  Asked before each effect, with nothing awaited in between."""
        return now_s() < self._until

    async def lock(self) -> None:
        """Return once no other process uses our folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._folder / "instance", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOOK_S)
        self.instance = _identity(self._file)

    async def acquire(self) -> bool:
        """Take it if it may be taken, and return whether it is ours; try again after LOOK_S."""
        taken = await self._write(self.instance)
        if taken:
            log.info("lease_taken", instance=self.instance)
        return taken

    async def hold(self) -> None:
        """Keep it; return when somebody else has it.

        While the broker is away it runs out, and nothing may act.  Nobody can take it then; so it goes on when the
        broker is back, or is over when another was faster.
        """
        while not self.other:
            await asyncio.sleep(RENEW_S if self.held() else LOOK_S)
            await self._write(self.instance)
        self._until = 0.0
        log.error("lease_lost", instance=self.instance)

    async def release(self) -> None:
        """Let it go: another may begin at once.  Nothing of ours may be under way any more."""
        if self.held():
            self._until = 0.0
            await self._write("")

    async def _write(self, holder: str) -> bool:
        """Look, and write it unless it may be another's; whether that was done."""
        try:
            connection = client(self._broker)
            if connection is None:
                return False
            bucket = await connection.jetstream(timeout=TIMEOUT_S).key_value(LEASES.name)
            revision, value = await kv.read(bucket, self._service)
            has = value.decode()
            if revision != self._seen:
                self._seen, self._since = revision, now_s()
            self.other = has not in ("", self.instance)
            if self.other and now_s() - self._since < LEASE_S:
                return False
            read_s = now_s()
            await bucket.update(self._service, holder.encode(), last=revision)
        except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
            log.debug("lease_not_written", error=type(error).__name__)
            return False
        self.other = False
        if holder:
            self._until = read_s + LEASE_S - MARGIN_S
        return True


def _identity(file: int) -> str:
    """The machine's name, and a hash of what no copy of the file has in common with it."""
    token = os.pread(file, 64, 0).decode()
    if not token:
        token = secrets.token_hex(16)
        os.pwrite(file, token.encode(), 0)
    inode = os.fstat(file).st_ino
    host = socket.gethostname()
    return f"{host}-{hashlib.sha256(f'{host} {inode} {token}'.encode()).hexdigest()[:12]}"
