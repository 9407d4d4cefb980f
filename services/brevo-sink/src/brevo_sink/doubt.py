"""Events in doubt: sent, and nobody knows whether they arrived.  Brevo is asked, with patience, before they go again."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from brevo_sink.brevo import Brevo, Reply
from brevo_sink.desk import Item
from brevo_sink.gate import Gate
from brevo_sink.request import IDEMPOTENCY_KEY
from shared.command import EventTrack

LOOKS = (
    3  # for an event before it is held to be absent: batches are queued at Brevo, with no promise how long
)
PAGE_MAX = 10_000  # events in one answer: https://developers.brevo.com/reference/get-events
PAGES_MAX = 10  # in one look: 100 calls an hour are all there are
DAY = timedelta(days=1)

log = structlog.get_logger()


class _Doubt(Struct, eq=False):
    item: Item
    since: float  # monotonic
    looks: int = 0


class Doubts:
    """What is in doubt, and the looking."""

    def __init__(self, brevo: Brevo, gate: Gate, *, look_s: float) -> None:
        self._brevo = brevo
        self._gate = gate
        self._look_s = look_s
        self._doubts: dict[str, _Doubt] = {}

    def __len__(self) -> int:
        return len(self._doubts)

    def add(self, item: Item) -> None:
        """Look for this one."""
        self._doubts.setdefault(item.command.id, _Doubt(item, time.monotonic()))

    async def look(self) -> tuple[list[Item], list[Item]]:
        """Wait for the next look, and look once for all.  Returns what arrived, and what did not and may go again."""
        await asyncio.sleep(self._look_s)
        asked = [doubt for doubt in self._doubts.values() if time.monotonic() - doubt.since >= self._look_s]
        if not asked:
            return [], []
        await self._gate.passed()
        keys = await self._keys([doubt.item.command for doubt in asked])
        found: list[Item] = []
        absent: list[Item] = []
        for doubt in asked:
            if doubt.item.command.id in keys[0]:
                found.append(doubt.item)
            elif keys[1]:  # the answer was whole: not there yet
                doubt.looks += 1
                if doubt.looks >= LOOKS:
                    absent.append(doubt.item)
        for item in (*found, *absent):
            del self._doubts[item.command.id]
        log.info("read_back", asked=len(asked), arrived=len(found), absent=len(absent))
        return found, absent

    async def _keys(self, commands: Iterable[Any]) -> tuple[set[str], bool]:
        """The idempotency keys Brevo has in the window of these events, and whether the answer was whole."""
        events = [command for command in commands if isinstance(command, EventTrack)]
        days = sorted(datetime.fromisoformat(event.time).date() for event in events)
        params = [
            *(("event_name", name) for name in sorted({event.name for event in events})),
            ("startDate", (days[0] - DAY).isoformat()),
            ("endDate", (days[-1] + DAY).isoformat()),
            ("limit", str(PAGE_MAX)),
        ]
        keys: set[str] = set()
        for page in range(PAGES_MAX):
            await self._brevo.turn("other")
            result = await self._brevo.call(
                "GET", "/events", params=[*params, ("offset", str(page * PAGE_MAX))]
            )
            if not isinstance(result, Reply) or result.status != 200:
                return keys, False
            listed = _events(result.body)
            keys.update(_key(event) for event in listed)
            if len(listed) < PAGE_MAX:
                return keys, True
        return keys, False


def _events(body: bytes) -> list[Mapping[str, Any]]:
    try:
        events = msgspec.json.decode(body, type=dict[str, Any]).get("events")
    except msgspec.MsgspecError:
        return []
    return [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []


def _key(event: Mapping[str, Any]) -> str:
    properties = event.get("event_properties")
    return str(properties.get(IDEMPOTENCY_KEY, "")) if isinstance(properties, dict) else ""
