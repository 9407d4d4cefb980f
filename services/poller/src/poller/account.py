"""Which workspace and chat service are Flex's, as Flex itself says; a wrong one is named as such."""

from msgspec import Struct

from poller import endpoints
from poller.twilio import Twilio, TwilioError
from shared.config import Poller
from shared.verdict import Pause


class Account(Struct, frozen=True):
    """What is polled."""

    account_sid: str
    workspace_sid: str
    chat_service_sid: str  # empty where the account has none


async def discover(twilio: Twilio, told: Poller) -> Account:
    """Ask Flex, or take what the connector file says.  Raises TwilioError."""
    try:
        flex = await twilio.fetch(endpoints.CONFIGURATION) or {}
    except TwilioError as error:
        # A key that may read TaskRouter but not Flex works, where the connector file says what Flex would.
        if not (told.workspace_sid and isinstance(error.verdict, Pause)):
            raise
        flex = {}
    if not flex and not told.workspace_sid:
        raise TwilioError(
            endpoints.CONFIGURATION,
            Pause(
                "this account has no Flex", "is TWILIO_ACCOUNT_SID the Flex account's? else set workspace_sid"
            ),
        )
    if flex.get("account_sid", twilio.account_sid) != twilio.account_sid:
        raise TwilioError(
            endpoints.CONFIGURATION,
            Pause("these credentials are another account's", "set TWILIO_ACCOUNT_SID to theirs"),
        )
    workspace_sid = told.workspace_sid or flex.get("taskrouter_workspace_sid") or ""
    if not workspace_sid or await twilio.fetch(endpoints.WORKSPACE, WorkspaceSid=workspace_sid) is None:
        remedy = (
            "take poller.workspace_sid out of the connector file, then Flex is asked"
            if told.workspace_sid
            else "finish the set-up of Flex in the Console"
        )
        raise TwilioError(
            endpoints.WORKSPACE,
            Pause(f"this account has no TaskRouter workspace {workspace_sid or 'at all'}", remedy),
        )
    return Account(
        account_sid=twilio.account_sid,
        workspace_sid=workspace_sid,
        chat_service_sid=told.chat_service_sid or flex.get("chat_service_instance_sid") or "",
    )
