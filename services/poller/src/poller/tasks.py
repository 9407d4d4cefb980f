"""The story of every task: TaskRouter's Events, which are kept for 30 days.

Not TaskRouter's Tasks: a task is gone from there 5 minutes after it has ended, and may lack its attributes.
https://www.twilio.com/docs/taskrouter/api/event
"""

from collections.abc import AsyncIterator, Iterable

from poller import endpoints, items
from poller.items import Item
from poller.resource import Source, Span
from shared.backfill import Count, Day
from shared.config import Resource
from shared.event import rfc3339

DAY_MS = 24 * 3600 * 1000


class Tasks:
    """Reads them, a day after another."""

    name: Resource = "tasks"
    window_ms = DAY_MS
    kept_ms = 30 * DAY_MS
    gone = "TaskRouter keeps events for 30 days: of tasks before {date} nothing is left at Twilio"
    every = 1

    def __init__(self, source: Source) -> None:
        self._source = source

    async def read(self, span: Span) -> AsyncIterator[Count]:
        """Store what happened then; what concerns no task, with any channels."""
        await self._source.intake.catch_up()
        pages = self._source.twilio.pages(
            endpoints.EVENTS,
            backfill=span.backfill,
            WorkspaceSid=self._source.account.workspace_sid,
            StartDate=rfc3339(span.start_ms // 1000 * 1000),
            EndDate=rfc3339(
                span.end_ms + 1000
            ),  # whole seconds; what is read beyond the window is read again
        )
        async for page in pages:
            read, unreadable = items.read_events(
                page.items,
                account_sid=self._source.account.account_sid,
                keep_bodies=self._source.config.message_bodies,
            )
            wanted = [item for item in read if not span.channels or item.channel in ("", *span.channels)]
            days = self._days(item for item in wanted if span.start_ms <= item.event.time_ms < span.end_ms)
            count = await self._source.intake.store(wanted, unreadable)
            count.days = days
            yield count

    def _days(self, read: Iterable[Item]) -> dict[str, Day]:
        """Of the tasks created, how many are in the log, and by whom."""
        days: dict[str, Day] = {}
        for item in read:
            if item.event.type == "task.created":
                day = days.setdefault(rfc3339(item.event.time_ms)[:10], Day())
                day.known += 1
                match self._source.intake.origin(item):
                    case "webhook":
                        day.told += 1
                    case "poller":
                        day.found += 1
                    case _:
                        day.fetched += 1
        return days
