"""What became of a command, said to the stream RECEIPTS, so that any machine can rebuild the ledger."""

from typing import Literal

import msgspec
from msgspec import Struct

from shared.message import MSG_ID, Message

Outcome = Literal["sending", "delivered", "superseded", "in_doubt", "rejected", "no_identity"]
"""sending is said before each call; the others close a command, but in_doubt, which is read back first."""


class Receipt(Struct, frozen=True, kw_only=True):
    """One outcome of one or more commands of one kind."""

    outcome: Outcome
    kind: str  # contact.upsert, event.track
    ids: tuple[str, ...]  # command ids; at most one Brevo batch, 200
    batch: str = ""  # names the call they went in
    why: str = ""  # no personal data
    dropped: tuple[str, ...] = ()  # identifiers Brevo refused, and we left out


def to_message(receipt: Receipt, msg_id: str, traceparent: str) -> Message:
    """The receipt as it stands in the stream RECEIPTS."""
    return Message(
        subject=f"receipt.{receipt.outcome}.{receipt.kind}",
        body=msgspec.json.encode(receipt),
        headers={MSG_ID: msg_id, "content-type": "application/json", "traceparent": traceparent},
    )
