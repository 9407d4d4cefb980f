"""Giving a contact another name at Brevo, when two customers turned out to be one.

Brevo cannot join two contacts without deleting one with its history (forceMerge), so we never do that.  Where only the
old name exists the contact is renamed.  Where both exist they stay two contacts; the one with the email becomes the
customer's, the other keeps its history and is told nothing more.  A contact that somebody else named keeps that name.
https://developers.brevo.com/reference/updatecontact

The order: at most two calls, each of which may be repeated; then the ledger, in one transaction; receipt; ack.
"""

from urllib.parse import quote

from brevo_sink import answer
from brevo_sink.answer import Outcome, Without
from brevo_sink.brevo import Brevo, Lost, NotSent, Reply
from brevo_sink.ledger import Ledger
from shared.body import json_object
from shared.command import ContactRelink, ContactUpsert
from shared.verdict import Done, Retry

PREFIX = "tajo-"  # of every ext_id of ours


async def relink(brevo: Brevo, ledger: Ledger, command: ContactRelink) -> Outcome:
    """Rename the contact.  Done also where there was nothing to rename, or both names are taken and stay two contacts."""
    was, now = command.was, command.ext_id
    if ledger.foreign_name(was) or ledger.foreign_name(now):
        return Done()
    outcome = await _rename(brevo, was, now)
    if isinstance(outcome, Without) and command.over:
        await brevo.turn("contacts")
        aside = await _rename(brevo, now, f"{now}.{command.version}")
        if not isinstance(aside, Done):
            return aside
        await brevo.turn("contacts")
        outcome = await _rename(brevo, was, now)
    return Done() if isinstance(outcome, Without) else outcome


async def _rename(brevo: Brevo, was: str, now: str) -> Outcome:
    """Without(EXT_ID) where another contact is called so."""
    path, by = f"/contacts/{quote(was, safe='')}", [("identifierType", "ext_id")]
    match await brevo.call("PUT", path, json={"ext_id": now}, params=by, kind="contact.relink"):
        case NotSent(why) | Lost(why):
            return Retry(why, answer.AGAIN_S)
        case Reply(status, headers, body):
            return answer.of_relink(status, headers, body)


async def foreign_name(brevo: Brevo, command: ContactUpsert) -> str | Retry:
    """How somebody else named the contact with this email; an empty text where nobody did.  Takes a turn of its own."""
    if not command.email:
        return ""
    await brevo.turn("contacts")
    path, by = f"/contacts/{quote(command.email, safe='')}", [("identifierType", "email_id")]
    match await brevo.call("GET", path, params=by):
        case NotSent(why) | Lost(why):
            return Retry(why, answer.AGAIN_S)
        case Reply(200, _, body):
            name = _name_in(body)
            return "" if name.startswith(PREFIX) else name
        case _:  # there is none; or what stands in the way is said to the call that follows
            return ""


def _name_in(body: bytes) -> str:
    attributes = json_object(body).get("attributes")
    name = attributes.get("EXT_ID") if isinstance(attributes, dict) else None
    return name if isinstance(name, str) else ""
