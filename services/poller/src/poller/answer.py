"""From Twilio's answers to verdicts: one table, each line with where it comes from.  Pure.

The status leads; Twilio's own code tells apart what has the same status.  https://www.twilio.com/docs/api/errors
"""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from msgspec import Struct

from shared.body import json_object
from shared.verdict import Done, Pause, Reject, Retry

RETRY_AFTER_MAX_S = 300.0  # then we ask again, whatever the header said
DELAY_MIN_S, DELAY_MAX_S = 0.5, 60.0


class Absent(Struct, frozen=True):
    """There is no such thing, or this account has none."""

    why: str


Outcome = Done | Absent | Retry | Reject | Pause


def of(status: int, headers: Mapping[str, str], body: bytes, *, now_s: float, delay_s: float) -> Outcome:
    """What an answer means.  `now_s` is epoch seconds, `delay_s` how long to wait where Twilio does not say."""
    error = json_object(body)
    why = _why(status, error)
    match status:
        case 200 | 201 | 202 | 204:
            return Done()
        case 401:  # 20003: https://www.twilio.com/docs/api/errors/20003
            return Pause(
                why + ": Twilio does not know this account sid with this token or key",
                "copy both anew from console.twilio.com; keys are of one region and one account",
            )
        case 403:  # 20403
            return Pause(
                why + ": the account may not use this",
                "is Flex enabled in this account, and may the API key read TaskRouter, Conversations and Flex?",
            )
        case 404:  # 20404
            return Absent(why)
        case 429:  # 20429, of Flex 45010, 45719 and 45780; never carried out: https://www.twilio.com/docs/errors/20429
            return Retry(why, retry_after_s(headers, now_s) or delay_s)
        case 408 | 409 | 425:
            return Retry(why, retry_after_s(headers, now_s) or delay_s)
        case _ if status >= 500:  # 20503, and what a proxy says
            return Retry(why, retry_after_s(headers, now_s) or delay_s)
        case _ if not error.get("code"):  # not Twilio's words: a proxy between us
            return Retry(why + " without Twilio's words", delay_s)
        case _:  # 400: 20001, and 40153 for a page that was not asked for by next_page_url; 412
            return Reject(why)


def delay_s(tries: int, dice: float) -> float:
    """How long to wait after so many tries, from 1; `dice` is from 0 to 1, so that many do not come back at once."""
    return float(min(DELAY_MIN_S * 2 ** min(tries - 1, 10), DELAY_MAX_S) * (0.5 + dice / 2))


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float:
    """Seconds, or a date; 0 where it says nothing we can read.  https://www.rfc-editor.org/rfc/rfc9110#field.retry-after"""
    said = headers.get("retry-after", "").strip()
    if said.isdecimal():
        return min(float(said), RETRY_AFTER_MAX_S)
    try:
        moment = parsedate_to_datetime(said)
    except ValueError:
        return 0.0
    return min(max(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now_s, 0.0), RETRY_AFTER_MAX_S)


def _why(status: int, error: Mapping[str, Any]) -> str:
    """Status and Twilio's code; its message may repeat what we asked for, and so whom."""
    code = error.get("code")
    return f"{status}, Twilio error {code}" if isinstance(code, int) and code != status else str(status)
