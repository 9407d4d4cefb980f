"""Keep children running: start in order, restart what dies with a growing delay, stop in the opposite order."""

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STOP_S = (
    20.0  # a child's grace between SIGTERM and SIGKILL; services need up to 10 s, and their batch in hand
)
RESTART_MIN_S = 0.5
RESTART_MAX_S = 30.0
STEADY_S = 60.0  # a child that ran this long starts over with the shortest delay

PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html


@dataclass
class Child:
    """One process to keep running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] | None = None  # else ours
    log: Path | None = None  # what it says is appended there; else it says it where we do
    keep_open: Sequence[int] = ()  # file descriptors it inherits: a lock is held as long as any child lives
    process: asyncio.subprocess.Process | None = field(default=None, init=False)


class GivenUpError(Exception):
    """A child says that no restart will help: its settings are wrong (exit code 78)."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} cannot start with these settings")
        self.name = name


async def keep(child: Child, say: Callable[[str], None]) -> None:
    """Run a child for ever.  Raises GivenUpError.  Cancelling does not stop it: `stop` does."""
    delay = RESTART_MIN_S
    while True:
        began = time.monotonic()
        child.process = await start(child)
        code = await child.process.wait()
        if code == os.EX_CONFIG:
            raise GivenUpError(child.name)
        delay = RESTART_MIN_S if time.monotonic() - began > STEADY_S else min(2 * delay, RESTART_MAX_S)
        say(f"{child.name} ended with {code}; again in {delay:g} s")
        await asyncio.sleep(delay)


async def start(child: Child) -> asyncio.subprocess.Process:
    """Start a process that our Ctrl-C does not reach, and that does not outlive us."""
    log = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if child.log else None
    try:
        return await asyncio.create_subprocess_exec(
            *child.command,
            env=child.environment,
            stdout=log,
            stderr=log,
            pass_fds=child.keep_open,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    finally:
        if log is not None:
            os.close(log)


async def stop(child: Child) -> None:
    """SIGTERM, its grace, SIGKILL.  A child that is gone is stopped."""
    process = child.process
    if process is None or process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
