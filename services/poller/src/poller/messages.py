"""What was said in Flex's conversations.  Off unless asked for; the words themselves only with `message_bodies`.

A call for each conversation: a poll reads those that were made today and changed since the last one, a backfill all.
"""

from collections.abc import AsyncIterator

from poller import endpoints, items
from poller.account import Account
from poller.conversations import DAY_MS, for_each, pages_of
from poller.intake import Intake
from poller.twilio import Twilio
from shared.backfill import Count
from shared.config import Channel, Resource, TwilioFlex


class Messages:
    """Reads them, a day's conversations after another's."""

    name: Resource = "messages"
    window_ms = DAY_MS
    kept_ms = 0
    gone = ""
    every = 10

    def __init__(self, twilio: Twilio, account: Account, intake: Intake, config: TwilioFlex) -> None:
        self._twilio = twilio
        self._account = account
        self._intake = intake
        self._config = config

    async def read(
        self,
        start_ms: int,
        end_ms: int,
        *,
        backfill: bool = False,
        channels: frozenset[Channel] = frozenset(),  # noqa: ARG002 - a message does not say its channel
    ) -> AsyncIterator[Count]:
        """Store what was said in the conversations made on these days, whatever their channel."""
        await self._intake.catch_up()
        async for page in pages_of(self._twilio, self._account, start_ms, end_ms, backfill=backfill):
            count = Count()
            heads, _ = items.read_conversations(
                page.items, account_sid=self._account.account_sid, keep_bodies=False
            )
            made = [item.event for item in heads if item.event.type == "conversation.added"]
            changed = [
                event.subject for event in made if backfill or items.changed_ms(event.body) >= start_ms
            ]

            async def one(sid: str, count: Count = count) -> None:
                pages = self._twilio.pages(
                    endpoints.MESSAGES,
                    backfill=backfill,
                    ChatServiceSid=self._account.chat_service_sid,
                    ConversationSid=sid,
                )
                async for page in pages:
                    read, unreadable = items.read_messages(
                        page.items,
                        account_sid=self._account.account_sid,
                        keep_bodies=self._config.message_bodies,
                    )
                    count.add(await self._intake.store(read, unreadable))

            await for_each(changed, one)
            yield count
