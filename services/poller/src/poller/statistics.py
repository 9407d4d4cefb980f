"""TaskRouter's own statistics of the workspace and each queue, for each quarter of an hour once it is over.

Twilio asks to cache them, so each is asked for once.  https://www.twilio.com/docs/taskrouter/limits
"""

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from poller import endpoints, items
from poller.endpoints import Endpoint
from poller.items import Item
from poller.resource import Source, Span
from shared.backfill import Count
from shared.config import Resource
from shared.event import rfc3339

QUARTER_MS = 15 * 60 * 1000


class Statistics:
    """Reads them, an hour after another."""

    name: Resource = "statistics"
    window_ms = 4 * QUARTER_MS
    kept_ms = 30 * 24 * 4 * QUARTER_MS  # they are computed from the events
    gone = (
        "TaskRouter computes statistics from events, which it keeps for 30 days: there are none before {date}"
    )
    every = 1  # most polls find no quarter that is over, and ask nothing

    def __init__(self, source: Source) -> None:
        self._source = source

    async def read(self, span: Span) -> AsyncIterator[Count]:
        """Store those of the quarters that ended then."""
        await self._source.intake.catch_up()
        for at_ms in range((span.start_ms // QUARTER_MS + 1) * QUARTER_MS, span.end_ms + 1, QUARTER_MS):
            yield await self._quarter(at_ms, backfill=span.backfill)

    async def _quarter(self, at_ms: int, *, backfill: bool) -> Count:
        """The workspace's last, so that what was interrupted before it is done again."""
        workspace = self._source.account.workspace_sid
        whole = self._item({}, "workspace.statistics", workspace, at_ms)
        if self._source.intake.origin(whole):
            return Count()
        count = Count()
        async for page in self._source.twilio.pages(
            endpoints.TASK_QUEUES, backfill=backfill, WorkspaceSid=workspace
        ):
            for raw in page.items:
                given = msgspec.json.decode(raw)
                queue = given.get("sid") if isinstance(given, dict) else None
                if not isinstance(queue, str):
                    continue  # `task_queues` says that it is none
                count.add(
                    await self._of(
                        endpoints.QUEUE_CUMULATIVE, endpoints.QUEUE_REAL_TIME, "task-queue.statistics", at_ms,
                        backfill=backfill, subject=queue, TaskQueueSid=queue,
                    )
                )  # fmt: skip
        count.add(
            await self._of(
                endpoints.WORKSPACE_CUMULATIVE, endpoints.WORKSPACE_REAL_TIME, "workspace.statistics", at_ms,
                backfill=backfill, subject=workspace,
            )
        )  # fmt: skip
        return count

    async def _of(
        self, cumulative: Endpoint, real_time: Endpoint, type_: str, at_ms: int, *, backfill: bool, subject: str, **sids: str
    ) -> Count:  # fmt: skip
        sids = {"WorkspaceSid": self._source.account.workspace_sid, **sids}
        past = await self._source.twilio.fetch(
            cumulative,
            backfill=backfill,
            StartDate=rfc3339(at_ms - QUARTER_MS),
            EndDate=rfc3339(at_ms),
            **sids,
        )
        over_s = time.time() - at_ms / 1000
        now = None
        if over_s < QUARTER_MS / 1000:  # what is now says nothing of a quarter long ago
            now = await self._source.twilio.fetch(real_time, backfill=backfill, **sids)
        given: dict[str, Any] = {"cumulative": past, "real_time": now}
        return await self._source.intake.store([self._item(given, type_, subject, at_ms)])

    def _item(self, given: dict[str, Any], type_: str, subject: str, at_ms: int) -> Item:
        return items.measured(
            given, type_=type_, subject=subject, account_sid=self._source.account.account_sid, at_ms=at_ms
        )
