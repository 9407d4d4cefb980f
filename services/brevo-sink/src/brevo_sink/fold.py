"""From receipts to ledger rows.  Pure.

Folded in their order, receipts make the ledger of the sink that said them.  It says `sending` before a call, so
whatever happened since, an event that may be at Brevo is `sending`, `in_doubt` or `delivered` here.
"""

from typing import Literal

from msgspec import Struct

from shared.receipt import Receipt, Told

State = Literal["sending", "in_doubt", "delivered", "rejected", "unresolved"]


class Wrote(Struct, frozen=True):
    """These events are in this state.  One that is delivered stays so: a sink is ahead of its own receipts."""

    ids: tuple[str, ...]
    state: State
    batch: str


class Unsent(Struct, frozen=True):
    """A call had no effect: its events are as if never sent.  What another call made of them stays."""

    ids: tuple[str, ...]
    batch: str


class Relinked(Struct, frozen=True):
    """What is said of `was` is said of `ext_id` from `position` of BREVO on; the command `id` is delivered."""

    was: str
    ext_id: str
    position: int  # 0 where a receipt does not say it
    id: str


class Erased(Struct, frozen=True):
    """The contact is gone, and what was said of it up to `position` of BREVO; the command `id` is delivered."""

    ext_id: str
    position: int
    id: str


Change = Wrote | Unsent | Told | Relinked | Erased


def change(receipt: Receipt) -> Change | None:
    """What a receipt changes.

    Of a contact only what Brevo has is kept: an upsert may always be sent again.  `no_identity` changes nothing,
    for such an event was never a command, and may become one when somebody comes after all.
    """
    if receipt.kind == "contact.upsert":
        return receipt.told
    if receipt.kind == "contact.delete":
        gone = receipt.told
        return Erased(gone.ext_id, gone.position, receipt.ids[0]) if gone else None
    if receipt.kind == "contact.relink":
        was, ext_id, *_ = receipt.ids[0].split("/")  # "<was>/<ext_id>/<version>"
        position = receipt.told.position if receipt.told else 0
        return Relinked(was, ext_id, position, receipt.ids[0]) if receipt.outcome == "delivered" else None
    match receipt.outcome:
        case "sending" | "in_doubt" | "delivered" | "rejected" | "unresolved":
            return Wrote(receipt.ids, receipt.outcome, receipt.batch)
        case "unsent":
            return Unsent(receipt.ids, receipt.batch)
        case "superseded" | "no_identity":
            return None
