"""Events in doubt: sent, and nobody knows whether they arrived.  Brevo is asked, with patience, before they go again."""

import asyncio
import itertools
import time
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from brevo_sink.brevo import Brevo, Reply, Result
from brevo_sink.desk import Item
from brevo_sink.gate import Gate
from brevo_sink.request import IDEMPOTENCY_KEY
from shared.body import NOT_JSON
from shared.command import EventTrack

LOOKS = (
    3  # for an event before it is held to be absent: batches are queued at Brevo, with no promise how long
)
PAGE_MAX = 10_000  # events in one answer: https://developers.brevo.com/reference/get-events
PAGES_MAX = 10  # of one window; else it is halved, down to a day: 100 calls an hour are all there are
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
        return await self._within(events, *_days(events)) if events else (set(), True)

    async def _within(self, events: list[EventTrack], first: date, last: date) -> tuple[set[str], bool]:
        """Those of some days; halves of them, where Brevo has so many events that the pages would never end."""
        params = [
            *(("event_name", name) for name in sorted({event.name for event in events})),
            ("startDate", (first - DAY).isoformat()),
            ("endDate", (last + DAY).isoformat()),
            ("limit", str(PAGE_MAX)),
        ]
        keys: set[str] = set()
        for page in itertools.count():
            await self._brevo.turn("other")
            result = await self._brevo.call(
                "GET", "/events", params=[*params, ("offset", str(page * PAGE_MAX))]
            )
            answered = _page(result)
            if answered is None:
                return keys, False
            if answered.count > PAGES_MAX * PAGE_MAX and first < last:
                return await self._halves(events, first, last)
            keys.update(_key(event) for event in answered.events)
            if len(answered.events) < PAGE_MAX:
                return keys, True
        raise AssertionError  # the pages end, or the answers do

    async def _halves(self, events: list[EventTrack], first: date, last: date) -> tuple[set[str], bool]:
        middle = first + (last - first) // 2
        keys, whole = set[str](), True
        for half in (
            [event for event in events if _day(event) <= middle],
            [event for event in events if _day(event) > middle],
        ):
            if half:
                found, complete = await self._within(half, *_days(half))
                keys |= found
                whole = whole and complete
        return keys, whole


def _day(event: EventTrack) -> date:
    return datetime.fromisoformat(event.time).date()


def _days(events: Iterable[EventTrack]) -> tuple[date, date]:
    """The first and the last day of these events."""
    days = sorted(map(_day, events))
    return days[0], days[-1]


class _Page(Struct):
    """https://developers.brevo.com/reference/get-events"""

    events: list[dict[str, Any]]
    count: int = 0  # of all that match


def _page(result: Result) -> _Page | None:
    """What was answered; None where that is no page, which says nothing of what arrived."""
    if not isinstance(result, Reply) or result.status != 200:
        return None
    try:
        return msgspec.json.decode(result.body, type=_Page)
    except NOT_JSON:
        return None


def _key(event: Mapping[str, Any]) -> str:
    properties = event.get("event_properties")
    return str(properties.get(IDEMPOTENCY_KEY, "")) if isinstance(properties, dict) else ""
