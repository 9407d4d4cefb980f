"""Calls in flight: each a task of its own, whose end is news; and none takes the sink along that fails in our own code."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress

import nats.errors
import structlog

from brevo_sink.desk import Desk, Item
from brevo_sink.ends import RETRY_MAX_S, Ends
from shared.service import STOP_GRACE_S

TRIES_MAX = 8  # of what makes our own code raise
LOOK_S, LOOK_IDLE_S = 0.25, 2.0  # between looks at what is in hand, without news; and while nothing is

log = structlog.get_logger()


class Calls:
    """Those that run; and what wakes who waits for one to end, or for more to do."""

    def __init__(self, desk: Desk, ends: Ends) -> None:
        self._desk = desk
        self._ends = ends
        self._running: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    def news(self) -> None:
        """Something was put on the desk, or freed there."""
        self._news.set()

    async def any_news(self) -> None:
        """Or what becomes so by time alone: what was put off, and that no more is expected to come again."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S if self._ends.held else LOOK_IDLE_S):
                await self._news.wait()

    def start(self, work: Coroutine[None, None, None], items: Sequence[Item]) -> asyncio.Task[None]:
        """Run what carries these items, guarded."""
        task: asyncio.Task[None] = asyncio.create_task(self.guarded(work, items))
        self._running.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._news.set()

    async def guarded(self, work: Coroutine[None, None, None], items: Sequence[Item]) -> None:
        """Whatever goes wrong in our own code: the items come again, and after TRIES_MAX are dead letters."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a bug must not hold a contact for ever
            tries = max(item.message.metadata.num_delivered for item in items)
            log.error("call_failed", items=len(items), error=type(error).__name__, tries=tries)
            await asyncio.sleep(min(2.0**tries, RETRY_MAX_S))
            names = {item.ext_id for item in items}
            held = [item for item in items if item.command.id in self._ends.held]
            if tries >= TRIES_MAX:
                await self._ends.reject(held, [f"{type(error).__name__} in brevo-sink"] * len(held))
            else:
                await self._again(held)
            self._desk.done(names)

    async def _again(self, items: Sequence[Item]) -> None:
        """Hear them once more: the ledger says which of them are in doubt."""
        for item in items:
            del self._ends.held[item.command.id]
            with suppress(nats.errors.Error, OSError):
                await item.message.nak()

    async def finish(self, *, ours: bool) -> None:
        """Let them end and be recorded, within STOP_GRACE_S.

        Where another works already, nothing is said any more: what is in flight is in doubt for both.
        """
        if not ours:
            for call in self._running:
                call.cancel()
        elif self._running:
            await asyncio.wait(self._running, timeout=STOP_GRACE_S)
