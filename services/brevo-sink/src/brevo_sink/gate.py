"""Pause, don't burn: while nothing can work until somebody acts, nothing is sent, and nothing is given up."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from brevo_sink.metrics import Metrics
from shared.verdict import Pause

PROBE_MIN_S = 5.0
PROBE_MAX_S = 300.0
REJECTS_MAX = 50  # in a row: then the fault is ours or the account's, not the commands'

log = structlog.get_logger()


class Gate:
    """Open, or shut with a reason and a remedy."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._open = asyncio.Event()
        self._open.set()
        self._shut = asyncio.Event()
        self._rejects = 0
        self._delay_s = PROBE_MIN_S  # before the next probe; of rejects it grows until a command is no reject
        self.why = ""

    async def passed(self) -> None:
        """Return once it is open."""
        await self._open.wait()

    def shut(self, pause: Pause) -> None:
        """Shut it; the one alert is written here."""
        if not self._open.is_set():
            return
        self.why = f"{pause.why}: {pause.remedy}"
        self._open.clear()
        self._shut.set()
        self._metrics.paused.set(1)
        log.error("paused", why=pause.why, remedy=pause.remedy)

    def release(self) -> None:
        """Hold nobody any more: we are leaving, and nothing will be sent."""
        self._open.set()

    def ended(self, count: int, *, rejected: bool) -> None:
        """Count rejects in a row."""
        self._rejects = self._rejects + count if rejected else 0
        if not rejected:
            self._delay_s = PROBE_MIN_S
        if self._rejects >= REJECTS_MAX:
            self._rejects = 0
            remedy = "read the dead letters: is a rule or the account wrong? Goes on after a good probe"
            self.shut(Pause(f"Brevo rejected {REJECTS_MAX} commands in a row", remedy))

    async def mend(self, probe: Callable[[], Awaitable[bool]]) -> None:
        """While shut, try at growing intervals whether it works again; runs until cancelled."""
        while True:
            await self._shut.wait()
            while True:
                await asyncio.sleep(self._delay_s)
                self._delay_s = min(2 * self._delay_s, PROBE_MAX_S)
                if await probe():
                    break
            self._shut.clear()
            self.why = ""
            self._metrics.paused.set(0)
            self._open.set()
            log.info("resumed")
