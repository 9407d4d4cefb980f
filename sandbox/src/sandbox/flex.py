"""Task attributes as Flex fills them: JSON without a schema, another for each channel.  Pure.

Voice: https://www.twilio.com/docs/taskrouter/twiml-queue-calls.  Messaging:
https://www.twilio.com/docs/flex/conversations
"""

from typing import Any

from sandbox.twilio import ACCOUNT_SID, sid

OUR_NUMBER = "+15005550006"


def voice(caller: str, call: str, **known: Any) -> dict[str, Any]:
    """Task attributes of a call; `account_sid` is Twilio's, not the customer's account."""
    places = {
        f"{who}_{what}": "" for who in ("from", "to", "caller", "called") for what in ("city", "zip", "state")
    }
    countries = dict.fromkeys(("from_country", "to_country", "caller_country", "called_country"), "US")
    return {
        **places, **countries,
        "call_sid": sid("CA", call), "account_sid": ACCOUNT_SID, "api_version": "2010-04-01",
        "call_status": "in-progress", "direction": "inbound", "type": "inbound",
        "from": caller, "caller": caller, "to": OUR_NUMBER, "called": OUR_NUMBER, "name": caller,
        "conversations": {"conversation_id": sid("WT", call)},
        **known,
    }  # fmt: skip


def messaging(kind: str, conversation: str, address: str, name: str, **known: Any) -> dict[str, Any]:
    """Task attributes of a Flex Conversation: sms, whatsapp or web."""
    return {
        "channelType": kind, "conversationSid": sid("CH", conversation), "direction": "inbound",
        "customerAddress": address, "customerName": name, "from": address or name,
        "flexInteractionSid": sid("KD", conversation), "flexInteractionChannelSid": sid("UO", conversation),
        "flexChannelInviteSid": sid("KG", conversation), "initiatedBy": "customer",
        "conversations": {
            "initiated_by": "customer", "conversation_id": sid("KD", conversation),
            "media": [{"type": "ChatTranscript", "sid": sid("CH", conversation)}],
        },
        **known,
    }  # fmt: skip
