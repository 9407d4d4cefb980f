"""What has no past at Twilio, as it is now: open tasks, agents, queues, and the legacy channels of Flex UI 1.x.

Each is a raw event again when Twilio changed it.  Nobody is told of them at Brevo: they are for the console.
"""

from collections.abc import AsyncIterator, Mapping

import msgspec
from msgspec import Struct

from poller import endpoints, items
from poller.endpoints import Endpoint
from poller.items import Item
from poller.resource import Source, Span
from poller.twilio import Page
from shared.backfill import Count
from shared.config import Resource


class List(Struct, frozen=True, kw_only=True):
    """A list of Twilio's, and what its items are called."""

    endpoint: Endpoint
    type_: str
    product: str = "taskrouter"
    filters: Mapping[str, str] = {}
    one: Endpoint | None = None  # where the attributes are that the list may lack


LISTS: dict[Resource, tuple[List, ...]] = {
    "open_tasks": (
        List(
            endpoint=endpoints.TASKS, type_="task.snapshot", one=endpoints.TASK,
            filters={"AssignmentStatus": "pending,reserved,assigned,wrapping"},
        ),
    ),
    "workers": (List(endpoint=endpoints.WORKERS, type_="worker.snapshot", one=endpoints.WORKER),),
    "task_queues": (List(endpoint=endpoints.TASK_QUEUES, type_="task-queue.snapshot"),),
    "channels": (
        List(endpoint=endpoints.CHANNELS, type_="channel.snapshot", product="flex"),
        List(endpoint=endpoints.WEB_CHANNELS, type_="web-channel.snapshot", product="flex"),
    ),
}  # fmt: skip


class Snapshots:
    """Reads one resource that has no past."""

    window_ms = 0
    kept_ms = 1  # what was before now is not to be had
    every = 10

    def __init__(self, name: Resource, source: Source) -> None:
        self.name = name
        self.gone = f"Twilio tells of {name} only as they are now"
        if name == "open_tasks":
            self.gone += "; of tasks that have ended, `tasks` tells"
        self._source = source

    async def read(self, span: Span) -> AsyncIterator[Count]:
        """Store what has changed."""
        await self._source.intake.catch_up()
        for one in LISTS[self.name]:
            sids = {"WorkspaceSid": self._source.account.workspace_sid} if one.product == "taskrouter" else {}
            async for page in self._source.twilio.pages(
                one.endpoint, backfill=span.backfill, **sids, **one.filters
            ):
                yield await self._stored(one, page, sids, backfill=span.backfill)

    async def _stored(self, one: List, page: Page, sids: Mapping[str, str], *, backfill: bool) -> Count:
        read, unreadable = self._read(one, [raw for raw in page.items if self._ours(raw)])
        if one.one:
            read = [await self._whole(one, one.one, item, sids, backfill=backfill) for item in read]
        return await self._source.intake.store(read, unreadable)

    def _read(self, one: List, raws: list[msgspec.Raw]) -> tuple[list[Item], list[items.Unreadable]]:
        return items.read_snapshots(
            raws,
            type_=one.type_,
            product=one.product,
            account_sid=self._source.account.account_sid,
            keep_bodies=self._source.config.message_bodies,
        )

    def _ours(self, raw: msgspec.Raw) -> bool:
        """Whether it is of the Flex flow that the connector file names; what names none is."""
        if self.name != "channels" or not self._source.config.flex_flow_sid:
            return True
        given = msgspec.json.decode(raw)
        return not isinstance(given, dict) or given.get("flex_flow_sid") in (
            None,
            self._source.config.flex_flow_sid,
        )

    async def _whole(
        self, one: List, endpoint: Endpoint, item: Item, sids: Mapping[str, str], *, backfill: bool
    ) -> Item:
        """With its attributes, where the list lacks them and it is new; as it was where it has gone meanwhile."""
        given = msgspec.json.decode(item.event.body)
        if given.get("attributes") is not None or self._source.intake.origin(item):
            return item
        whole = await self._source.twilio.fetch(endpoint, backfill=backfill, Sid=item.event.subject, **sids)
        read = whole and self._read(one, [msgspec.Raw(msgspec.json.encode(whole))])[0]
        return read[0] if read else item
