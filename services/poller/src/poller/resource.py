"""What every resource of Twilio's is to those who read it: polling and backfills."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from poller.account import Account
from poller.intake import Intake
from poller.twilio import Twilio
from shared import config
from shared.backfill import Count
from shared.config import Channel, TwilioFlex


@dataclass(frozen=True)
class Source:
    """Where everything is read from, and where it goes."""

    twilio: Twilio
    account: Account
    intake: Intake
    config: TwilioFlex


@dataclass(frozen=True)
class Span:
    """What of a resource is read: what happened then, epoch milliseconds."""

    start_ms: int
    end_ms: int
    backfill: bool = False  # it leaves room under the limits for what happens now
    channels: frozenset[Channel] = frozenset()  # none: all


class Resource(Protocol):
    """Something Twilio keeps a list of."""

    name: config.Resource  # its cursor's, and its backfill's
    window_ms: int  # read at once, then its cursor moves; 0: it has no past and is read as it is now
    kept_ms: int  # how long Twilio keeps it; 0: until somebody deletes it
    gone: str  # what is said where older was asked for
    every: int  # it is read each so-manieth poll

    def read(self, span: Span) -> AsyncIterator[Count]:
        """Store it, page after page.  Raises TwilioError, NotPublishedError."""


def window_end_ms(resource: Resource, at_ms: int, until_ms: int) -> int:
    """Where the window that begins at `at_ms` ends: windows begin at whole multiples of their length."""
    if not resource.window_ms:
        return until_ms
    return min((at_ms // resource.window_ms + 1) * resource.window_ms, until_ms)
