"""Flex's Conversations: that they began, that they were closed, and who took part.

Twilio filters by the day a conversation was made and has no `updated since`, so a poll reads all that were made today,
and is not made each time.  Participants cost a call for each conversation: a poll reads them where no webhook told of its
beginning, a backfill wherever we did not store them ourselves.  They are stored before it, so that a crash in between
reads them again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from poller import endpoints, items
from poller.items import Item
from poller.resource import Source, Span
from poller.twilio import CONNECTIONS, Page, TwilioError
from shared.backfill import Count
from shared.config import Channel, Resource
from shared.event import rfc3339
from shared.verdict import Reject

DAY_MS = 24 * 3600 * 1000


class Conversations:
    """Reads them, a day after another."""

    name: Resource = "conversations"
    window_ms = DAY_MS
    kept_ms = 0
    gone = ""
    every = 10

    def __init__(self, source: Source) -> None:
        self._source = source

    async def read(self, span: Span) -> AsyncIterator[Count]:
        """Store those made on these days.

        Which channel a conversation is on only its participants say: those of another are left out.
        """
        await self._source.intake.catch_up()
        async for page in pages_of(self._source, span):
            read, unreadable = items.read_conversations(
                page.items,
                account_sid=self._source.account.account_sid,
                keep_bodies=self._source.config.message_bodies,
            )
            asked = [item for item in read if self._unsure(item, span)]
            others, refused = await self._participants([item.event.subject for item in asked], span)
            left_out = {sid for sid, said in others.items() if span.channels and not _on(span.channels, said)}
            left_out |= refused.keys()
            taking_part = [item for sid, said in others.items() if sid not in left_out for item in said]
            count = await self._source.intake.store(taking_part)
            count.add(
                await self._source.intake.store(
                    [item for item in read if item.event.subject not in left_out],
                    [*unreadable, *refused.values()],
                )
            )
            yield count

    def _unsure(self, item: Item, span: Span) -> bool:
        """Whether the log may lack who takes part: for what we stored ourselves it does not."""
        known = (None, "webhook") if span.backfill else (None,)
        return item.event.type == "conversation.added" and self._source.intake.origin(item) in known

    async def _participants(
        self, sids: Sequence[str], span: Span
    ) -> tuple[dict[str, list[Item]], dict[str, items.Unreadable]]:
        """Who takes part, by conversation; and those of which Twilio refuses to say it."""
        found: dict[str, list[Item]] = {}
        refused: dict[str, items.Unreadable] = {}

        async def one(sid: str) -> None:
            try:
                found[sid] = await read(sid)
            except TwilioError as error:
                if not isinstance(error.verdict, Reject):
                    raise
                refused[sid] = items.refused(items.PARTICIPANTS, sid, str(error))

        async def read(sid: str) -> list[Item]:
            said: list[Item] = []
            pages = self._source.twilio.pages(
                endpoints.PARTICIPANTS,
                backfill=span.backfill,
                ChatServiceSid=self._source.account.chat_service_sid,
                ConversationSid=sid,
            )
            async for page in pages:
                said += items.read_participants(page.items, account_sid=self._source.account.account_sid)
            return said

        await for_each(sids, one)
        return found, refused


def pages_of(source: Source, span: Span) -> AsyncIterator[Page]:
    """The conversations made on these days; no pages where the account has no chat service."""
    return source.twilio.pages(
        endpoints.CONVERSATIONS,
        backfill=span.backfill,
        ChatServiceSid=source.account.chat_service_sid,
        StartDate=rfc3339(span.start_ms)[:10],
        EndDate=rfc3339(max(span.start_ms, span.end_ms - 1))[:10],  # a window ends where the next day begins
    )


async def for_each(sids: Sequence[str], work: Callable[[str], Awaitable[None]]) -> None:
    """Several at a time, one connection left to what happens now.  Raises the first error, the others are ended."""
    waiting = iter(sids)

    async def take() -> None:
        for sid in waiting:  # shared: each takes the next
            await work(sid)

    tasks = [asyncio.create_task(take()) for _ in range(min(CONNECTIONS - 1, len(sids)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _on(channels: frozenset[Channel], participants: Sequence[Item]) -> bool:
    """Whether any of them is on one of these; where none has an address it is a web chat."""
    on = {item.channel for item in participants if item.channel} or {"webchat"}
    return bool(on & channels)
