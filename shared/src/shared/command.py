"""What the mapper asks of Brevo, and the sink carries out.  Contracts grow by fields with defaults."""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from shared.event import shard
from shared.message import MSG_ID, Message

Delivery = Literal["exactly_once", "at_least_once", "at_most_once"]
"""What becomes of an event when nobody knows whether Brevo took it: it is looked for at Brevo before it is sent again,
sent again at once, or never sent again."""

Value = bool | int | float | str
"""What a contact attribute may hold.  https://developers.brevo.com/reference/createcontact"""


class ContactUpsert(Struct, frozen=True, kw_only=True, tag_field="kind", tag="contact.upsert"):
    """Make a contact be as the book says.  Safe to repeat; only the newest version matters."""

    id: str  # "<ext_id>/<version>/<mapping>/<content hash>": another state or mapping is another command
    ext_id: str  # ours, with our prefix; Brevo's key for the contact
    version: int  # the highest TWILIO sequence the state includes; an older is never sent over a newer,
    # and of two with the same version the later in BREVO is the newer (the mapper heard something again)
    mapping: str  # hash of the mapping that made it
    email: str | None = None  # lower case
    attributes: dict[str, Value] = {}  # UPPER_SNAKE, SMS as E.164 among them
    list_ids: tuple[int, ...] = ()


class EventTrack(Struct, frozen=True, kw_only=True, tag_field="kind", tag="event.track"):
    """Tell Brevo once that something happened to a contact."""

    id: str  # "<entity sid>/<domain type>[/<ms>]/<rule>": the idempotency key, the same from every source
    ext_id: str  # whose; the contact is upserted before
    name: str  # Brevo's event_name: [A-Za-z0-9_-]{1,255}
    time: str  # RFC 3339 with ms: when it happened at Twilio
    properties: Mapping[
        str, str | int | float | bool
    ] = {}  # the sink makes of them what the batch schema knows
    delivery: Delivery = "exactly_once"


class ContactRelink(Struct, frozen=True, kw_only=True, tag_field="kind", tag="contact.relink"):
    """Two contacts turned out to be one customer, or an earlier identifier named one anew.  Safe to repeat.

    From here on whatever is said of `was` is said of `ext_id`; an upsert of `ext_id` follows.
    """

    id: str  # "<was>/<ext_id>/<version>"
    ext_id: str  # the contact's name from now on
    was: str  # its name at Brevo so far
    version: int  # the highest TWILIO sequence it follows from; of two about one contact the later counts
    over: bool = False  # where Brevo has both: `was` has the email and takes the name, the other is set aside


class ContactDelete(Struct, frozen=True, kw_only=True, tag_field="kind", tag="contact.delete"):
    """A customer is to be forgotten: the contact goes, with all that was said of it before.  Safe to repeat.

    What is said of it later makes it anew.
    """

    id: str  # "<ext_id>/delete/<version>"
    ext_id: str
    version: int  # the highest TWILIO sequence that is forgotten


Command = ContactUpsert | EventTrack | ContactRelink | ContactDelete

_KINDS = {
    one: str(one.__struct_config__.tag) for one in (ContactUpsert, EventTrack, ContactRelink, ContactDelete)
}
_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)


def kind(command: Command) -> str:
    """contact.upsert, contact.relink, contact.delete, event.track: the word in the subject, the receipt and the logs."""
    return _KINDS[command.__class__]


PAST = "brevo.past."
"""Before the shard, of a command that may wait for those of what happens now: history, a rebuild, a replay."""


STORED = "Tajo-Stored"
"""Header: when the log stored the raw event that released the command, epoch milliseconds; absent where nobody waits."""


def to_message(command: Command, traceparent: str, *, past: bool = False, stored_ms: int = 0) -> Message:
    """The command as it stands in the stream BREVO, sharded by contact; `past` lets those of what happens now go first."""
    stored = {STORED: str(stored_ms)} if stored_ms and not past else {}
    return Message(
        subject=f"{PAST if past else 'brevo.'}{shard(command.ext_id)}.{kind(command)}",
        body=_encode(command),
        headers={
            MSG_ID: command.id,
            "content-type": "application/json",
            "traceparent": traceparent,
            **stored,
        },
    )


def from_body(body: bytes) -> Command:
    """The command of a message of BREVO.  Raises msgspec.MsgspecError, which names a path and no value."""
    return _decoder.decode(body)
