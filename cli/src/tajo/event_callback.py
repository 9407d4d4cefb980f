"""A workspace's event callback: there is one, it may be somebody else's, and it is never overwritten unasked."""

from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

from poller import endpoints
from poller.twilio import Twilio

ROUTE = "/webhooks/taskrouter"
OVERRIDES = "rc=5&rp=all"
"""Five tries within 15 s whatever goes wrong, instead of one where no connection comes about.

https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides
"""

State = Literal["there", "set", "kept"]


class Callback(Struct, frozen=True):
    """What became of it: `there` already, `set` by us, or another's and `kept`."""

    state: State
    instead_of: str = ""  # what stands or stood there, without secrets
    events_filter: str = ""  # if there is one, TaskRouter tells of nothing else


def url_of(public_url: str) -> str:
    """What to register."""
    return f"{public_url}{ROUTE}#{OVERRIDES}"


def judge(existing: str, ours: str, *, force: bool) -> State:
    """What to do where `existing` stands: ours with other overrides is ours.  Pure."""
    if existing == ours:
        return "there"
    same = existing.partition("#")[0] == ours.partition("#")[0]
    return "set" if not existing or same or force else "kept"


def masked(url: str) -> str:
    """The URL without what may be secret in it: user and password, query, fragment.  Pure."""
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "a URL that cannot be read"
    user = "…@" if "@" in parts.netloc else ""
    return urlunsplit((parts.scheme, f"{user}{host}", parts.path, "…" if parts.query else "", ""))


async def set_callback(twilio: Twilio, workspace_sid: str, ours: str, *, force: bool) -> Callback:
    """Set it, unless another's stands there and `force` is false.  Raises TwilioError."""
    workspace = await twilio.fetch(endpoints.WORKSPACE, WorkspaceSid=workspace_sid) or {}
    existing = workspace.get("event_callback_url") or ""
    state = judge(existing, ours, force=force)
    if state == "set":
        form = [("EventCallbackUrl", ours)]
        await twilio.create(endpoints.WORKSPACE_UPDATE, form, WorkspaceSid=workspace_sid)
    other = "" if state == "there" else masked(existing) if existing else ""
    return Callback(state, other, workspace.get("events_filter") or "")
