"""`tajo log export --redact`: who the customers are is replaced, so that what happened may leave the house.  Pure.

The same mail, phone, name or id becomes the same fake wherever it stands, so what belonged together still does.  The key
is made for each export and kept nowhere: nobody can try all phone numbers until one fits.
"""

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
from yarl import query_to_pairs

from mapper.attributes import e164
from shared import redact
from shared.body import FIELDS_MAX, NOT_JSON
from shared.message import MSG_ID, Message

DOMAIN = "example.com"  # reserved: https://www.rfc-editor.org/rfc/rfc2606
COUNTRY = "+999"  # no country has it: https://www.itu.int/pub/T-SP-E.164D
UNREADABLE = b"[left out: it can neither be read nor redacted]"

_LOCAL = r"[\w.!#$%&'*+/=?^`{|}~-]"
_MAIL = re.compile(rf"{_LOCAL}++@[\w-]+(?:\.[\w-]+)+")
# Only from where one may begin: else a megabyte with no @ in it is read from each of its characters on.
_MAILS = re.compile(rf"(?<!{_LOCAL})(?:{_MAIL.pattern})+")
_PHONE = re.compile(r"(?<![\w+])\+[1-9]\d{6,14}(?!\d)", re.ASCII)
_PHONE_LIKE = re.compile(r"\+?[\d\s().-]{7,24}", re.ASCII)

NAMES = frozenset({
    "name", "friendlyname", "customername", "firstname", "lastname", "fullname", "callername", "workername",
    "agentname",
})  # fmt: skip
IDS = frozenset({
    "identity", "clientidentity", "customerid", "externalid", "accountid", "author", "customeraddress",
})  # fmt: skip
PHONES = frozenset({
    "from", "to", "caller", "called", "phone", "outboundto", "mobile", "customeraddress", "address", "proxyaddress",
    "projectedaddress", "authoraddress", "phonenumber",
})  # fmt: skip
WRITTEN = frozenset({"comment", "content", "feedback", "initialmessage", "question"})
"""Names of fields, in small letters, without _ and -, and without what stands before their last dot."""


class Pseudonyms:
    """Replaces by one key; `also` names further fields."""

    def __init__(self, key: bytes, also: Collection[str] = ()) -> None:
        self._key = key
        self._ids = IDS | {_plain(name) for name in also}

    def of(self, message: Message) -> Message:
        """The same message of a made-up person."""
        headers = {
            name: self._text(value) if name in ("ce-id", "ce-subject", MSG_ID) else value
            for name, value in message.headers.items()
        }
        return Message(message.subject, self._body(message.body), headers)

    def _body(self, body: bytes) -> bytes:
        if not body:
            return body
        try:
            if body.lstrip()[:1] in b"{[":
                whole = redact.value(msgspec.json.decode(body), keep_bodies=False)
                return msgspec.json.encode(self._value(whole, ""))
            fields = redact.pairs(query_to_pairs(body.decode(), max_fields=FIELDS_MAX), keep_bodies=False)
            return urlencode([(name, str(self._value(value, name))) for name, value in fields]).encode()
        except (*NOT_JSON, ValueError):
            return UNREADABLE

    def _value(self, given: Any, name: str) -> Any:
        plain = _plain(name)
        match given:
            case Mapping():
                return {self._text(key): self._value(value, key) for key, value in given.items()}
            case list():
                return [self._value(value, name) for value in given]
            case str() if plain in WRITTEN:
                return redact.BODY if given else given
            case str() if given[:1] in ("{", "["):
                try:
                    return msgspec.json.encode(self._value(msgspec.json.decode(given), name)).decode()
                except NOT_JSON:
                    return self._named(given, plain)
            case str():
                return self._named(given, plain)
            case bool() | None:
                return given
            case int() | float() if plain in self._ids or plain in PHONES:
                return self._named(str(given), plain)
        return given

    def _named(self, text: str, plain: str) -> str:
        """What a field of this name says."""
        if not text:
            return text
        if plain in PHONES and _PHONE_LIKE.fullmatch(text):
            return self._phone(text)
        clean = self._text(text)
        if clean != text or plain not in NAMES | self._ids or _withheld(text):
            return clean
        return f"{'Person' if plain in NAMES else 'id'}-{self._hash('name', text)}"

    def _text(self, text: str) -> str:
        """A text, with the mails and phones in it replaced."""
        text = _MAILS.sub(lambda mails: _MAIL.sub(self._mail, mails[0]), text)
        return _PHONE.sub(lambda phone: self._phone(phone[0]), text)

    def _mail(self, mail: re.Match[str]) -> str:
        return f"person-{self._hash('mail', mail[0].lower())}@{DOMAIN}"

    def _phone(self, text: str) -> str:
        digits = re.sub(r"\D", "", text)
        if _withheld(f"+{digits}"):
            return text
        number = int(self._hash("phone", digits), 16) % 10**10
        return f"{COUNTRY if text.startswith('+') else COUNTRY[1:]}{number:010}"

    def _hash(self, kind: str, text: str) -> str:
        return hmac.new(self._key, f"{kind}:{text}".encode(), hashlib.sha256).hexdigest()[:12]


def _withheld(text: str) -> bool:
    """Whether it looks like a phone number and is nobody's: anonymous, blocked."""
    return _PHONE.fullmatch(text) is not None and not e164(text)


def _plain(name: str) -> str:
    return name.rpartition(".")[2].lower().replace("_", "").replace("-", "")
