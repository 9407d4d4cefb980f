"""From Brevo's answers to verdicts: one table, each line with where it comes from.  Pure.

Codes and messages change without notice, so the status leads, then what is machine-readable, then the text.
https://developers.brevo.com/docs/how-it-works#error-codes
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from brevo_sink.budget import UNTOLD_S, rest_s
from shared.body import json_object
from shared.verdict import Done, Pause, Reject, Retry

AGAIN_S = 5.0  # after what passes by itself: 425, 5xx


class InDoubt(Struct, frozen=True):
    """Nobody knows whether it took effect."""

    why: str


class Without(Struct, frozen=True):
    """It works without these identifiers, which belong to another contact or are none."""

    identifiers: frozenset[str]  # "email", "SMS"; of a new name "EXT_ID"
    why: str
    taken: bool = False  # by another contact, which is for a policy to decide


class Partly(Struct, frozen=True):
    """Of a batch these are refused, each with why; the others took effect."""

    refused: dict[int, str]


class Halve(Struct, frozen=True):
    """The whole batch was refused, and nobody says for which; nothing took effect."""

    why: str


class Singly(Struct, frozen=True):
    """The account may not send batches; nothing took effect."""

    why: str


Conflicts = Literal["drop_identifier", "park"]
"""What becomes of a contact with an identifier that is another contact's."""

Outcome = Done | Retry | Reject | Pause | InDoubt | Without | Partly | Halve | Singly

_TAKEN = re.compile(
    r"(email|sms|ext_id|whatsapp|landline_number)\b.* (?:is|are) already associate", re.IGNORECASE
)
_IP = re.compile(r"unrecognised IP", re.IGNORECASE)
_NO_KEY = re.compile(r"authentication not found", re.IGNORECASE)
_REMEDY_PLAN = "look at the plan at app.brevo.com"
_REMEDY_KEY = "make a key at app.brevo.com > SMTP & API > API keys and set BREVO_API_KEY"


def exists(status: int, body: bytes) -> bool:
    """Whether a POST /contacts without updateEnabled was refused because there is such a contact."""
    error = json_object(body)
    return status == 400 and bool(_taken(error) or re.search("already exist", _message(error), re.IGNORECASE))


def would_subscribe(body: bytes, email: str) -> bool:
    """Whether to give the contact of this GET another email would subscribe a person who is blocklisted."""
    contact = json_object(body)
    return bool(contact.get("emailBlacklisted")) and str(contact.get("email", "")).lower() != email.lower()


def of_relink(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """What became of a PUT /contacts/{ext_id} with a new ext_id.  https://developers.brevo.com/reference/updatecontact"""
    if status == 404 and json_object(body).get("code"):  # never told of it: there is nothing to rename
        return Done()
    if status == 400 and "EXT_ID" in _taken(json_object(body)):
        return Without(frozenset({"EXT_ID"}), "another contact is called so")
    return of_contact(status, headers, body)


def of_delete(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """What became of a DELETE /contacts/{ext_id}; one that is not there is gone.  https://developers.brevo.com/reference/deletecontact"""
    if status == 404 and json_object(body).get("code"):
        return Done()
    return of_contact(status, headers, body)


def of_contact(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """What became of a POST /contacts."""
    if stop := _stop(status, body):
        return stop
    match status:
        case 200 | 201 | 204:  # created; updated: https://developers.brevo.com/reference/createcontact
            return Done()
        case 400:
            return _refused_contact(json_object(body))
        case _:
            return _of_any(status, headers, body, uncertain=False)


def of_events(status: int, headers: Mapping[str, str], body: bytes, count: int) -> Outcome:
    """What became of a POST /events/batch of `count` events.  https://developers.brevo.com/reference/create-batch-events"""
    if stop := _stop(status, body):
        return stop
    match status:
        case 202 | 200 | 201 | 204:
            return Done()
        case 207 | 400:  # 207: https://developers.brevo.com/changelog/2026/3/3; a 400 may have the same body
            said = json_object(body)
            refused = _by_index(said, count)
            if status == 400 and len(refused) < count:  # all are refused, and not all are named
                return Halve(_why(status, body)) if count > 1 else Reject(_why(status, body))
            if said.get("successful_events", count - len(refused)) != count - len(refused) or not refused:
                return InDoubt("207 that does not say which")  # a look tells which arrived
            return Partly(refused)
        case 403 | 404 | 405 | 501 if json_object(body).get("code"):
            return Singly(
                _why(status, body)
            )  # if the key may send no event at all, the single call will tell
        case 413:  # larger than Brevo takes, whatever is documented
            return Halve(_why(status, body)) if count > 1 else Reject(_why(status, body))
        case _:
            return _of_any(status, headers, body, uncertain=True)


def of_event(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """What became of a POST /events.  https://developers.brevo.com/reference/create-event"""
    match status:
        case 200 | 201 | 202 | 204:
            return Done()
        case _:
            return _of_any(status, headers, body, uncertain=True)


def _stop(status: int, body: bytes) -> Pause | None:
    """What stands in the way of every call, whatever its status: which one these codes come with is not documented."""
    match json_object(body).get("code") if status >= 400 else "":
        case "account_under_validation":
            return Pause("Brevo is validating the account", "wait, or ask Brevo's support")
        case "not_enough_credits":
            return Pause("the Brevo plan does not include this, or its credits are used up", _REMEDY_PLAN)
        case _:
            return None


def _of_any(status: int, headers: Mapping[str, str], body: bytes, *, uncertain: bool) -> Outcome:
    """What is the same for every call."""
    if stop := _stop(status, body):
        return stop
    message = _message(json_object(body))
    match status:
        case 401 | 403 if _IP.search(message):  # https://github.com/getbrevo/brevo-python/issues/13
            return Pause(
                "Brevo does not know our IP address", "allow it at app.brevo.com/security/authorised_ips"
            )
        case 401 if _NO_KEY.search(message):
            return Pause("Brevo hears no API key", "does a proxy take away the header api-key?")
        case 401:  # wrong, deleted or run out
            return Pause("Brevo refuses our API key", _REMEDY_KEY)
        case 402:
            return Pause("the Brevo plan does not include this, or its credits are used up", _REMEDY_PLAN)
        case 403:  # permission_denied
            return Pause("the Brevo API key may not do this", "give the key access to contacts and events")
        case 408 | 425 | 409:  # too early: the same contact is being processed
            return Retry(_why(status, body), AGAIN_S)
        case 429:  # https://developers.brevo.com/docs/limit-headers
            return Retry("429", rest_s(headers) or UNTOLD_S)
        case _ if (
            status >= 500
        ):  # 524 is Cloudflare's timeout, in plain text: https://github.com/getbrevo/brevo-php/issues/26
            return InDoubt(str(status)) if uncertain else Retry(str(status), AGAIN_S)
        case _ if not json_object(body).get(
            "code"
        ):  # not Brevo's words: a proxy between us, or a moved address
            return Retry(f"{status} without Brevo's words", AGAIN_S)
        case _:  # 404, 405, 406, 415, 422, 424 and what nobody documents
            return Reject(_why(status, body))


def _taken(error: Mapping[str, Any]) -> frozenset[str]:
    """Identifiers that belong to another contact."""
    metadata = error.get("metadata")
    taken = metadata.get("duplicate_identifiers") if isinstance(metadata, dict) else None
    message = _message(error)
    # The code is duplicate_parameter or invalid_parameter for the same thing:
    # https://github.com/pass-culture/pass-culture-main/pull/22628
    names = taken if isinstance(taken, list) else [match[1] for match in _TAKEN.finditer(message)]
    if not names and re.search("contact already exist", message, re.IGNORECASE):
        names = ["email"]
    return frozenset("email" if str(name).lower() == "email" else str(name).upper() for name in names)


def _refused_contact(error: Mapping[str, Any]) -> Outcome:
    found, message = _taken(error), _message(error)
    if "EXT_ID" in found:
        return Reject("its ext_id belongs to another contact")
    if found:
        return Without(found, "belongs to another contact", taken=True)
    if re.search("invalid phone number", message, re.IGNORECASE):
        return Without(frozenset({"SMS"}), "no phone number to Brevo")
    if re.search(
        r"(?:invalid|not (?:a )?valid)\b.*\bemail|\bemail\b.*(?:invalid|not valid)", message, re.IGNORECASE
    ):
        return Without(frozenset({"email"}), "no email to Brevo")
    return Reject(_why(400, msgspec.json.encode(error)))


def _by_index(body: Mapping[str, Any], count: int) -> dict[int, str]:
    """The refused of a batch: errors[{eventIndex: [n, …], message}]."""
    refused: dict[int, str] = {}
    errors = body.get("errors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            where = error.get("eventIndex")
            for index in where if isinstance(where, list) else [where]:
                if isinstance(index, int) and 0 <= index < count:
                    refused[index] = ": ".join(filter(None, ("refused", _public(_message(error)))))
    return refused


def _message(error: Mapping[str, Any]) -> str:
    message = error.get("message")
    return message if isinstance(message, str) else ""


def _why(status: int, body: bytes) -> str:
    error = json_object(body)
    code = error.get("code")
    words = f" {code}" if isinstance(code, str) else ""
    return ": ".join(filter(None, (f"{status}{words}", _public(_message(error)))))


def without_words(why: str) -> str:
    """Of why something failed what names nobody for sure: Brevo's message, which may quote what it was sent, is left out."""
    return why.partition(": ")[0]


_PRIVATE = re.compile(r"(?<!\S)\S+@\S+|\+?\d[\d ().-]{6,}\d")


def _public(message: str) -> str:
    """A message without the mails and numbers Brevo may repeat in it."""
    return _PRIVATE.sub("…", message)[:200]
