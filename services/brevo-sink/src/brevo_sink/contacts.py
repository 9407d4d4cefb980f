"""Contacts: each told as it is now, and never two writes of one at once (desk.py sees to that)."""

from urllib.parse import quote

import structlog

from brevo_sink import answer, papers, request
from brevo_sink.answer import Conflicts, Outcome, Without
from brevo_sink.brevo import Brevo, Lost, NotSent, Reply, Result
from brevo_sink.desk import Desk, Item
from brevo_sink.ends import Ends
from brevo_sink.ledger import Ledger
from brevo_sink.relink import foreign_name
from shared.command import ContactUpsert
from shared.verdict import Done, Reject, Retry

log = structlog.get_logger()


class Contacts:
    """The way of an upsert to Brevo."""

    def __init__(self, *, brevo: Brevo, ledger: Ledger, desk: Desk, ends: Ends, conflicts: Conflicts) -> None:
        self._conflicts = conflicts
        self._brevo = brevo
        self._ledger = ledger
        self._desk = desk
        self._ends = ends

    async def tell(self, item: Item) -> None:
        """Tell Brevo of a contact once, and settle what came of it."""
        upsert = item.command
        assert isinstance(upsert, ContactUpsert)  # noqa: S101 - the desk keeps them apart
        outcome = await self._make_or_update(item, upsert)
        match outcome:
            case Done():
                await self._ends.delivered(item, papers.told(item, upsert))
            case Without(identifiers, why, taken) if taken and self._conflicts == "park":
                names = ", ".join(sorted(identifiers))
                await self._refuse(item, upsert, f"{names} {why}")
            case Without(identifiers, why) if identifiers - item.without:
                log.warning(
                    "identifier_left_out", contact=upsert.ext_id, identifiers=sorted(identifiers), why=why
                )
                item.without |= identifiers
                await self._ends.back([item])
            case Reject(why) | Without(_, why):
                await self._refuse(item, upsert, why)
            case _:
                await self._ends.later([item], outcome)
        self._desk.done([upsert.ext_id], known=True if isinstance(outcome, Done) else None)

    async def _refuse(self, item: Item, upsert: ContactUpsert, why: str) -> None:
        """A dead letter, and its events with it where Brevo does not have the contact."""
        await self._ends.reject([item], [why])
        orphans = self._desk.orphan(upsert.ext_id)
        await self._ends.reject(orphans, [f"its contact was refused: {why}"] * len(orphans))

    async def _make_or_update(self, item: Item, upsert: ContactUpsert) -> Outcome:
        """Make it, where we never told of it: one that exists may bear somebody else's name, which is looked up first."""
        name = self._ledger.foreign_name(upsert.ext_id)
        if not name and not self._ledger.has(upsert.ext_id):
            body = request.contact(upsert, upsert.ext_id, item.without, update=False)
            result = await self._brevo.call("POST", "/contacts", json=body, kind="contact.upsert")
            if not isinstance(result, Reply) or not answer.exists(result.status, result.body):
                return _of_contact(result)
            found = await foreign_name(self._brevo, upsert)
            if isinstance(found, Retry):
                return found
            if found:
                log.info("named_by_another", contact=upsert.ext_id)
                self._ledger.keep_name(upsert.ext_id, found)
            name = found
            await self._brevo.turn("contacts")
        item.foreign_name = name
        if kept := await self._keep_email(item, upsert, name or upsert.ext_id):
            return kept
        body = request.contact(upsert, name or upsert.ext_id, item.without)
        return _of_contact(await self._brevo.call("POST", "/contacts", json=body, kind="contact.upsert"))

    async def _keep_email(self, item: Item, upsert: ContactUpsert, name: str) -> Outcome | None:
        """Leave the email out where it is another and the contact is blocklisted: to change it subscribes the person again.

        https://developers.brevo.com/reference/updatecontact
        """
        told = self._ledger.identifiers(upsert.ext_id)
        if (
            "email" in item.without
            or not upsert.email
            or request.same_email(told, request.fingerprint(upsert))
        ):
            return None
        path, by = f"/contacts/{quote(name, safe='')}", [("identifierType", "ext_id")]
        result = await self._brevo.call("GET", path, params=by)
        await self._brevo.turn("contacts")
        if not isinstance(result, Reply):
            return _of_contact(result)
        if result.status not in (200, 404):
            return answer.of_contact(result.status, result.headers, result.body)
        if answer.would_subscribe(result.body, upsert.email):
            log.warning("email_kept", contact=upsert.ext_id, why="the contact is blocklisted")
            item.without |= {"email"}
        return None


def _of_contact(result: Result) -> Outcome:
    match result:
        case NotSent(why) | Lost(why):
            return Retry(why, answer.AGAIN_S)
        case Reply(status, headers, body):
            return answer.of_contact(status, headers, body)
