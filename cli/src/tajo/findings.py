"""What an answer says about an installation: a finding, with the cause and what to do.  Pure."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from poller.answer import Absent
from poller.endpoints import Product
from shared.verdict import Pause, Reject, Retry

Status = Literal["ok", "failed", "warning", "skipped"]
HEARD_S = 24 * 3600  # without a webhook for so long something is wrong, however quiet the nights are

FLEX = "Flex API connection"
CONVERSATIONS = "Conversations API"
WORKSPACE = "TaskRouter workspace"
AGENTS = "Agent list"
QUEUES = "Queue configuration"
BREVO, ATTRIBUTES = "Brevo API key", "Brevo attributes and lists"
NATS, STREAMS, DISK, WEBHOOKS = "NATS", "Streams and consumers", "Writes to disk", "Webhooks"

_REGION = re.compile(r"\.([a-z]{2}\d)\.twilio\.com$")


class Finding(Struct, frozen=True, omit_defaults=True):
    """One thing that was looked at."""

    name: str
    status: Status
    said: str  # the whole line
    why: str = ""
    remedy: str = ""


def passed(name: str, said: str) -> Finding:
    """All is well."""
    return Finding(name, "ok", f"{name} {said}")


def failed(name: str, why: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(name, "failed", f"{name}: {why}", why, remedy)


def warned(name: str, why: str, remedy: str) -> Finding:
    """It works, and somebody should look."""
    return Finding(name, "warning", f"{name}: {why}", why, remedy)


def skipped(name: str, because: str) -> Finding:
    """It was not looked at."""
    return Finding(name, "skipped", f"{name}: not looked at, because {because}", because)


# -- Twilio -------------------------------------------------------------------------------------------------

Failed = Retry | Reject | Pause | Absent
Fetched = Mapping[str, Any] | Failed | None
"""One thing, None where there is none, or why the call did not work."""


def of_failed(name: str, verdict: Failed, *, where: str = "") -> Finding:
    """A call to Twilio that did not work."""
    match verdict:
        case Pause(why, remedy) if refused(verdict) and where not in ("", "us1"):
            return failed(name, why, f"{remedy}; the addresses given are of the region {where}")
        case Pause(why, remedy):
            return failed(name, why, remedy)
        case Absent(why):
            return failed(name, f"{why}: it is not there", "is this the account that has Flex?")
        case _:
            return failed(
                name, f"Twilio does not answer as it should ({verdict.why})",
                "is the network there, are the TAJO_TWILIO_…_URL right, and what does status.twilio.com say?",
            )  # fmt: skip


def region(url: str) -> str:
    """The region an address of Twilio's is of; empty for an address that is not Twilio's."""
    host = urlsplit(url).hostname or ""
    found = _REGION.search(host)
    return found[1] if found else "us1" if host.endswith(".twilio.com") else ""


def of_regions(urls: Mapping[Product, str]) -> Finding | None:
    """Addresses of several regions: an account's data is in one of them."""
    regions = {product: region(url) for product, url in urls.items()}
    if len(set(regions.values())) < 2:
        return None
    told = ", ".join(f"{product} {where or 'none of Twilio'}" for product, where in regions.items())
    return failed(
        "Region", f"the addresses are of several regions: {told}", "set all of TAJO_TWILIO_…_URL to one"
    )


def of_flex(answer: Fetched, account_sid: str, where: str) -> Finding:
    """GET /v1/Configuration."""
    if answer is None:
        return failed(
            FLEX, "this account has no Flex", "enable Flex in the Console; is TWILIO_ACCOUNT_SID the Flex account's?"
        )  # fmt: skip
    if not isinstance(answer, Mapping):
        return of_failed(FLEX, answer, where=where)
    if answer.get("account_sid", account_sid) != account_sid:
        return failed(FLEX, "these credentials are another account's", "set TWILIO_ACCOUNT_SID to theirs")
    return passed(FLEX, "successful")


def refused(answer: Fetched) -> bool:
    """Whether Twilio does not know who asks."""
    return isinstance(answer, Pause) and answer.why.startswith("401")


def of_token(number: int, answer: Fetched, *, another_known: bool) -> Finding:
    """The same with an auth token that is not read with: webhooks are signed with one of them."""
    name, why = f"Auth token {number}", "Twilio does not know it"
    if not refused(answer):
        return passed(name, "known to Twilio")
    if another_known:
        return warned(
            name, why, "take it out of TWILIO_AUTH_TOKEN, unless it is about to become the account's"
        )
    return failed(name, why, "webhooks signed with another are refused: set TWILIO_AUTH_TOKEN")


def of_conversations(chat_service_sid: str, page: Sequence[Any] | Failed | None) -> Finding:
    """A page of conversations; None where there is no such service."""
    if not chat_service_sid:
        return failed(
            CONVERSATIONS, "Flex names no chat service, so there are no conversations to read",
            "enable Flex Conversations in the Console, or set poller.chat_service_sid in the connector file",
        )  # fmt: skip
    if page is None:
        return failed(
            CONVERSATIONS, f"there is no chat service {chat_service_sid} in this account",
            "take poller.chat_service_sid out of the connector file, then Flex is asked",
        )  # fmt: skip
    return (
        passed(CONVERSATIONS, "accessible") if isinstance(page, Sequence) else of_failed(CONVERSATIONS, page)
    )


def of_workspace(told: str, by_flex: str, answer: Fetched) -> Finding:
    """The workspace that is read: as the connector file says, else as Flex does."""
    if not (told or by_flex):
        return failed(WORKSPACE, "Flex names none", "finish the set-up of Flex in the Console")
    if answer is None:
        return failed(
            WORKSPACE, f"this account has no workspace {told or by_flex}; Flex uses {by_flex or 'none'}",
            "take poller.workspace_sid out of the connector file, then Flex is asked",
        )  # fmt: skip
    if not isinstance(answer, Mapping):
        return of_failed(WORKSPACE, answer)
    if told and by_flex and told != by_flex:
        return warned(
            WORKSPACE, f"{told} is read, and Flex uses {by_flex}",
            "take poller.workspace_sid out of the connector file, unless another workspace is meant",
        )  # fmt: skip
    return passed(WORKSPACE, "found")


def of_list(name: str, said: str, page: Sequence[Any] | Failed | None) -> Finding:
    """A page of agents or queues."""
    if page is None:
        return failed(name, "the workspace has none", "is the workspace the one Flex uses?")
    return passed(name, said) if isinstance(page, Sequence) else of_failed(name, page)


# -- Brevo --------------------------------------------------------------------------------------------------


def of_plan(account: Mapping[str, Any]) -> Finding:
    """GET /account.  https://developers.brevo.com/reference/getaccount"""
    plans = [
        f"{one.get('planCategory', '')} {one.get('name') or one.get('planType', '')}".strip()
        for one in account.get("planVerticals") or []
        if isinstance(one, Mapping) and one.get("status", "active") == "active"
    ]
    plans = plans or [str(one.get("type")) for one in account.get("plan") or [] if isinstance(one, Mapping)]
    return Finding(BREVO, "ok", f"{BREVO} valid (plan {', '.join(plans) or 'unknown'})")


def of_attributes(create: Collection[str], problems: Sequence[str], remedy: str) -> Finding:
    """What the mapping needs of Brevo: what will be made, and what a person must mend."""
    if problems:
        return failed(ATTRIBUTES, "; ".join(problems), remedy)
    if create:
        return Finding(ATTRIBUTES, "ok", f"{ATTRIBUTES} good; will be made: {', '.join(create)}")
    return passed(ATTRIBUTES, "good")


# -- ours ---------------------------------------------------------------------------------------------------


def of_streams(differences: Sequence[str]) -> Finding:
    """The broker against shared/topology.py."""
    if differences:
        return failed(STREAMS, "; ".join(differences), "run tajo bootstrap")
    return passed(STREAMS, "as they should be")


def of_disk(*, always: bool) -> Finding:
    """Whether an ack means on disk."""
    if always:
        return passed(DISK, "before every ack")
    return failed(
        DISK, "the broker syncs them later, and a power cut loses what it acked", "set sync_interval: always"
    )


def of_service(name: str, status: int, said: str) -> Finding:
    """A service's /health/ready; 0 where nothing answers."""
    if not status:
        return warned(
            name, f"does not answer on {said}", "is it running, and is this the machine it runs on?"
        )
    if status != 200:
        return failed(name, f"not ready: {said}", "its log says more")
    return Finding(name, "ok", f"{name} {said}")


def of_webhooks(age_s: float | None, looked_at: int) -> Finding:
    """When the last raw event came by webhook; None where none of the last did."""
    remedy = "is what tajo connectors install printed pasted in the Console, and does the Flex plugin run?"
    if age_s is None:
        of = f"none of the last {looked_at} raw events came by one" if looked_at else "none was heard yet"
        return warned(WEBHOOKS, of, remedy)
    if age_s > HEARD_S:
        return warned(WEBHOOKS, f"silent: the last one came {ago(age_s)} ago", remedy)
    return passed(WEBHOOKS, f"heard: the last one {ago(age_s)} ago")


def ago(seconds: float) -> str:
    """A span as one says it."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} seconds"
