"""The local Twilio's web chats, begun over REST: of Flex Conversations, and legacy.

https://www.twilio.com/docs/flex/developer/conversations, https://www.twilio.com/docs/flex/developer/messaging/api
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs

from sandbox.http import Answer, Asked
from sandbox.twilio import sid
from sandbox.words import refused

REQUIRED = {
    "/flex/v2/WebChats": ("AddressSid",),
    "/flex/v1/WebChannels": ("FlexFlowSid", "Identity", "CustomerFriendlyName", "ChatFriendlyName"),
}


@dataclass(frozen=True)
class Begun:
    """What is answered, and whose conversation there is now; no name where none was begun."""

    answer: Answer
    name: str = ""
    identity: str = ""


def begin(asked: Asked, account_sid: str, number: int, now_s: float, url: str) -> Begun:
    """The conversation of this number: 201, or 400 naming the parameter that is missing."""
    form = {name: values[-1] for name, values in parse_qs(asked.body.decode()).items()}
    if missing := [name for name in REQUIRED[asked.path] if not form.get(name)]:
        return Begun(refused(400, 20001, f"Missing required parameter {missing[0]} in the post body"))
    name = f"web chat {number} {form.get('ChatFriendlyName', '')}"
    identity = form.get("Identity") or sid("US", name)[2:]
    conversation = sid("CH", name)
    if asked.path.endswith("/WebChats"):
        return Begun(Answer(201, {"conversation_sid": conversation, "identity": identity}), name, identity)
    date = f"{datetime.fromtimestamp(now_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
    shown = {
        "sid": conversation, "account_sid": account_sid, "flex_flow_sid": form["FlexFlowSid"],
        "date_created": date, "date_updated": date, "url": f"{url}/{conversation}",
    }  # fmt: skip
    return Begun(Answer(201, shown), name, identity)
