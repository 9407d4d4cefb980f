"""Brevo's contacts, as far as we know how they behave.  https://developers.brevo.com/reference/createcontact

Identifiers are email, ext_id and the attribute SMS.  Attributes that do not exist, and values of another type
than the attribute's, are dropped without a word.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sandbox.contact import ORDER, Attribute, Contact, Identifier, canonical, identifiers_of
from sandbox.http import Answer, Asked, BadRequestError, refused

_NAMES: dict[str, Identifier] = {"ext_id": "EXT_ID", "email_id": "email", "phone_id": "SMS"}


@dataclass
class Contacts:
    """The contacts of one account."""

    attributes: Mapping[str, Attribute]
    lists: Mapping[int, str]
    registered: str = ""  # the email the account was registered with
    first: Identifier = "email"  # whose contact is meant when two identifiers have two owners: not documented
    conflict_code: str = "duplicate_parameter"  # invalid_parameter since May 2026, seen with the same message
    by_id: dict[int, Contact] = field(default_factory=dict)
    _owners: dict[tuple[Identifier, str], Contact] = field(default_factory=dict)
    _last_id: int = 246

    def create(self, asked: Asked, now: datetime) -> Answer:
        """POST /contacts: 201 with the id, 204 for an update, 400 for a conflict."""
        body = asked.json()
        identifiers = identifiers_of(body)
        if not identifiers:
            return refused(400, "missing_parameter", "email or ext_id or SMS is missing")
        owned = {which: c for which, value in identifiers.items() if (c := self._owner(which, value))}
        lists = self._known_lists(body.get("listIds", []))
        if owned and not body.get("updateEnabled"):
            return self._conflict("create", list(owned))
        contact = self._meant(identifiers, owned)
        contested = [which for which, owner in owned.items() if owner is not contact]
        if contested and not body.get("forceMerge"):
            return self._conflict("update" if contact else "create", contested)
        if owned:
            contact = self._merge([*([contact] if contact else []), *owned.values()])
            status = 200 if body.get("getId") else 204
        else:
            self._last_id += 1
            contact = self.by_id[self._last_id] = Contact(self._last_id, now, now)
            status = 201
        self._write(contact, identifiers, body, now)
        contact.list_ids |= lists
        return Answer(status, None if status == 204 else {"id": contact.id})

    def update(self, identifier: str, asked: Asked, now: datetime) -> Answer:
        """PUT /contacts/{identifier}: 204, 404, or 400 for a conflict."""
        contact = self._find(identifier, asked)
        body = asked.json()
        identifiers = identifiers_of(body)
        owners = {which: self._owner(which, value) for which, value in identifiers.items()}
        contested = {which: c for which, c in owners.items() if c not in (None, contact)}
        if contested and not body.get("forceMerge"):
            return self._conflict("update", list(contested))
        lists = self._known_lists(body.get("listIds", []))
        contact = self._merge([contact, *(c for c in contested.values() if c)])
        self._write(contact, identifiers, body, now)
        contact.list_ids = (contact.list_ids | lists) - set(body.get("unlinkListIds", []))
        return Answer(204)

    def take_row(self, row: Mapping[str, Any], list_ids: set[int], now: datetime) -> None:
        """One row of an import: EXT_ID and then email say whose it is, and whom they bring together becomes one."""
        attributes = dict(row.get("attributes") or {})
        if not canonical("SMS", attributes.get("SMS", "")):
            attributes.pop("SMS", None)  # what is no phone is dropped without a word, as other values are
        body = {"email": row.get("email"), "attributes": attributes}
        identifiers = identifiers_of(body)
        order: tuple[Identifier, ...] = ("EXT_ID", "email", "SMS")
        owners = [
            c for which in order if which in identifiers and (c := self._owner(which, identifiers[which]))
        ]
        if owners:
            contact = self._merge(owners)
        else:
            self._last_id += 1
            contact = self.by_id[self._last_id] = Contact(self._last_id, now, now)
        # github.com/sendinblue/APIv3-python-library/issues/95
        body["attributes"] = {name: value for name, value in attributes.items() if value is not False}
        self._write(contact, identifiers, body, now)
        contact.list_ids |= list_ids

    def read(self, identifier: str, asked: Asked) -> Answer:
        """GET /contacts/{identifier}: 200 or 404."""
        return Answer(200, self._find(identifier, asked).shown())

    def delete(self, identifier: str, asked: Asked) -> Answer:
        """DELETE /contacts/{identifier}: 204, 404, or 405 for the one who registered the account."""
        contact = self._find(identifier, asked)
        if contact.email == self.registered:
            message = "You're not allowed to delete registered email contact with Brevo"
            return refused(405, "method_not_allowed", message)
        self._remove(contact)
        return Answer(204)

    def page(self, asked: Asked) -> Answer:
        """GET /contacts: paged, sorted by creation; `count` is of all that match."""
        limit = asked.number("limit", 50, least=1, most=1000)
        offset = asked.number("offset", 0, least=0, most=10**9)
        found = list(self._matching(asked))
        found.sort(key=lambda contact: contact.id, reverse=asked.one("sort", "desc") == "desc")
        page = found[offset : offset + limit]
        return Answer(200, {"contacts": [contact.shown() for contact in page], "count": len(found)})

    def resolve(self, identifiers: Mapping[str, Any]) -> Contact | None:
        """Whom an event's identifiers mean; contact_id outranks the rest."""
        if "contact_id" in identifiers:
            return self.by_id.get(identifiers["contact_id"])
        for name, which in _NAMES.items():
            if name in identifiers and (found := self._owner(which, canonical(which, identifiers[name]))):
                return found
        return None

    def write_attributes(self, contact: Contact, attributes: Mapping[str, Any], now: datetime) -> None:
        """Keep the values that fit, drop the others in silence."""
        for name, value in attributes.items():
            known = self.attributes.get(name)
            if known and known.fits(value) and name not in ("SMS", "EMAIL", "EXT_ID"):
                contact.attributes[name] = value
        contact.modified_at = now

    def _write(
        self, contact: Contact, identifiers: Mapping[Identifier, str], body: dict[str, Any], now: datetime
    ) -> None:
        for which, value in identifiers.items():
            self._owners.pop((which, contact.identifier(which)), None)
            self._owners[which, value] = contact
        if identifiers.get("email", contact.email) != contact.email:
            contact.blocklisted = False  # https://developers.brevo.com/reference/updatecontact says so
        if "emailBlacklisted" in body:
            contact.blocklisted = bool(body["emailBlacklisted"])
        contact.email = identifiers.get("email", contact.email)
        contact.ext_id = identifiers.get("EXT_ID", contact.ext_id)
        if "SMS" in identifiers:
            contact.attributes["SMS"] = identifiers["SMS"]
        self.write_attributes(contact, body.get("attributes", {}), now)

    def _meant(
        self, identifiers: Mapping[Identifier, str], owned: Mapping[Identifier, Contact]
    ) -> Contact | None:
        """Whom an upsert is about: email and ext_id say so, a phone only where neither is given."""
        strong = [which for which in (self.first, *ORDER[:2]) if which in identifiers]
        return next((owned[which] for which in strong or ORDER[2:] if which in owned), None)

    def _merge(self, several: list[Contact]) -> Contact:
        """The one modified last survives, the others are deleted with what they had."""
        survivor = max(several, key=lambda contact: contact.modified_at)
        for other in several:
            if other is not survivor:
                self._remove(other)
        return survivor

    def _remove(self, contact: Contact) -> None:
        self.by_id.pop(contact.id, None)
        for which in ORDER:
            if self._owner(which, contact.identifier(which)) is contact:
                del self._owners[which, contact.identifier(which)]

    def _owner(self, which: Identifier, value: str) -> Contact | None:
        return self._owners.get((which, value))

    def _find(self, identifier: str, asked: Asked) -> Contact:
        found: Contact | None = None
        match asked.one("identifierType"):
            case "contact_id" if identifier.isdecimal():
                found = self.by_id.get(int(identifier))
            case "email_id" | "ext_id" | "phone_id" as name:
                which = _NAMES[name]
                found = self._owner(which, canonical(which, identifier))
            case "" if identifier.isdecimal():
                found = self.by_id.get(int(identifier))
            case "":
                which = "email" if "@" in identifier else "SMS"
                found = self._owner(which, canonical(which, identifier))
        if found is None:
            raise BadRequestError(refused(404, "document_not_found", "Contact does not exist"))
        return found

    def _matching(self, asked: Asked) -> Iterator[Contact]:
        modified, created = (_moment(asked.one(name)) for name in ("modifiedSince", "createdSince"))
        ids = {int(text) for text in asked.query.get("ids", []) if text.isdecimal()}
        lists = {int(text) for text in asked.query.get("listIds", []) if text.isdecimal()}
        for contact in self.by_id.values():
            if (
                (modified is None or contact.modified_at >= modified)
                and (created is None or contact.created_at >= created)
                and (not ids or contact.id in ids)
                and (not lists or contact.list_ids & lists)
            ):
                yield contact

    def _known_lists(self, ids: Any) -> set[int]:
        if not isinstance(ids, list) or not all(id_ in self.lists for id_ in ids):
            raise BadRequestError(refused(400, "invalid_parameter", "List ids are invalid"))
        return set(ids)

    def _conflict(self, verb: str, which: list[Identifier]) -> Answer:
        names = " or ".join(which)
        are = "are" if len(which) > 1 else "is"
        return refused(
            400,
            self.conflict_code,
            f"Unable to {verb} contact, {names} {are} already associated with another Contact",
            duplicate_identifiers=which,
        )


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequestError(refused(400, "invalid_parameter", "Invalid date")) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
