"""What became of a command, said to the stream RECEIPTS, so that any machine can rebuild the ledger."""

from typing import Literal

import msgspec
from msgspec import Struct

from shared.message import MSG_ID, Message

Outcome = Literal[
    "sending", "unsent", "delivered", "superseded", "in_doubt", "unresolved", "rejected", "no_identity"
]
"""sending is said before each call of events, unsent when it took no effect.  The others close a command, but
in_doubt, which is read back first.  unresolved is one in doubt for good: its rule says at_most_once."""


class Told(Struct, frozen=True, kw_only=True):
    """The contact as Brevo has it now."""

    ext_id: str
    version: int
    position: int  # the command's sequence in BREVO; an upsert's that was said again, its first
    mapping: str
    name: str = ""  # its ext_id at Brevo, where somebody else gave it
    identifiers: str = (
        ""  # tells whether email or phone are others now: 32 bits of a hash each, too few to find them
    )


class Receipt(Struct, frozen=True, kw_only=True):
    """One outcome of one or more commands of one kind."""

    outcome: Outcome
    kind: str  # contact.upsert, contact.relink, contact.delete, event.track
    ids: tuple[str, ...]  # command ids; at most one Brevo batch, 200
    batch: str = ""  # names the call they went in; no two calls have one name
    why: str = ""  # no personal data
    dropped: tuple[str, ...] = ()  # identifiers Brevo refused, and we left out
    told: Told | None = None  # of a delivered contact.upsert; of a contact.delete, what there was up to then;
    # of a contact.relink, who is called otherwise since then


_decoder = msgspec.json.Decoder(Receipt)


def from_body(body: bytes) -> Receipt:
    """The receipt of a message of RECEIPTS.  Raises msgspec.MsgspecError, which names a path and no value."""
    return _decoder.decode(body)


def to_message(receipt: Receipt, msg_id: str, traceparent: str) -> Message:
    """The receipt as it stands in the stream RECEIPTS."""
    return Message(
        subject=f"receipt.{receipt.outcome}.{receipt.kind}",
        body=msgspec.json.encode(receipt),
        headers={MSG_ID: msg_id, "content-type": "application/json", "traceparent": traceparent},
    )
