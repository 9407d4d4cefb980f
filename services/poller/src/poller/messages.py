"""What was said in Flex's conversations.  Off unless asked for; the words themselves only with `message_bodies`.

A call for each conversation: a poll reads those that were made today and changed since the last one, a backfill all.
"""

from collections.abc import AsyncIterator

from poller import endpoints, items
from poller.conversations import DAY_MS, for_each, pages_of
from poller.resource import Source, Span
from poller.twilio import TwilioError
from shared.backfill import Count
from shared.config import Resource
from shared.verdict import Reject


class Messages:
    """Reads them, a day's conversations after another's."""

    name: Resource = "messages"
    window_ms = DAY_MS
    kept_ms = 0
    gone = ""
    every = 10

    def __init__(self, source: Source) -> None:
        self._source = source

    async def read(self, span: Span) -> AsyncIterator[Count]:
        """Store what was said in the conversations made on these days, whatever their channel."""
        await self._source.intake.catch_up()
        async for page in pages_of(self._source, span):
            count = Count()
            heads, _ = items.read_conversations(
                page.items, account_sid=self._source.account.account_sid, keep_bodies=False
            )
            made = [item.event for item in heads if item.event.type == "conversation.added"]
            changed = [
                event.subject
                for event in made
                if span.backfill or items.changed_ms(event.body) >= span.start_ms
            ]

            async def one(sid: str, count: Count = count) -> None:
                try:
                    await read(sid, count)
                except TwilioError as error:
                    if not isinstance(error.verdict, Reject):
                        raise
                    refused = items.refused(items.MESSAGES, sid, str(error))
                    count.add(await self._source.intake.store((), [refused]))

            async def read(sid: str, count: Count) -> None:
                pages = self._source.twilio.pages(
                    endpoints.MESSAGES,
                    backfill=span.backfill,
                    ChatServiceSid=self._source.account.chat_service_sid,
                    ConversationSid=sid,
                )
                async for page in pages:
                    said, unreadable = items.read_messages(
                        page.items,
                        account_sid=self._source.account.account_sid,
                        keep_bodies=self._source.config.message_bodies,
                    )
                    count.add(await self._source.intake.store(said, unreadable))

            await for_each(changed, one)
            yield count
