"""A dead letter: the original bytes and headers of what could not be handled, and why, where, who, tries."""

from collections.abc import Mapping

from msgspec import Struct

from shared.message import MSG_ID, Message

_WRITTEN = "Tajo-Dead-"  # before each header that a letter has and the original had not

_SAID = "Tajo-Position"  # of what is said again: where in its stream it was said first

_OURS = (
    "Nats-Batch-Id",
    "Nats-Batch-Sequence",
    "Nats-Batch-Commit",
    MSG_ID,
)  # the transport's, not the message's


def to_message(
    *,
    who: str,
    why: str,
    where: str,
    msg_id: str,
    body: bytes,
    headers: dict[str, str],
    tries: int = 1,
) -> Message:
    """A letter for the stream DEAD.

    `who` is the service, `where` is stream:sequence:subject or the route, `why` names a path or a
    status, never a value: it is read by people and may be logged.  `msg_id` comes from the cause, so
    a letter written twice stands once.
    """
    return Message(
        subject=f"dead.{who}",
        body=body,
        headers={
            **{name: value for name, value in headers.items() if name not in _OURS},
            **({f"{_WRITTEN}Msg-Id": headers[MSG_ID]} if MSG_ID in headers else {}),
            MSG_ID: f"dead/{who}/{msg_id}",
            f"{_WRITTEN}Why": " ".join(why.split())[:500],  # a header holds one line
            f"{_WRITTEN}Where": where,
            f"{_WRITTEN}Who": who,
            f"{_WRITTEN}Tries": str(tries),
        },
    )


class Letter(Struct, frozen=True, kw_only=True):
    """A dead letter as it stands in DEAD."""

    sequence: int  # in DEAD
    written: str  # when, RFC 3339
    who: str
    why: str
    where: str
    tries: int
    msg_id: str  # the original's Nats-Msg-Id; empty where it had none
    trace_id: str
    headers: dict[str, str]  # the original's, without its Nats-Msg-Id
    body: bytes

    @property
    def subject(self) -> str:
        """The subject it came on; empty where it came by another way than a stream."""
        return self.where.split(":", 2)[2] if self.where.count(":") >= 2 and "//" not in self.where else ""

    @property
    def position(self) -> int:
        """Where it was said first in the stream it came from; 0 where it came by another way."""
        if not self.subject:
            return 0
        sequence = int(self.where.split(":")[1])
        return first_said(self.headers, before=sequence) or sequence


def from_message(*, sequence: int, written: str, headers: Mapping[str, str], body: bytes) -> Letter:
    """What `to_message` wrote."""
    kept = {name: value for name, value in headers.items() if not name.startswith((_WRITTEN, "Nats-"))}
    return Letter(
        sequence=sequence,
        written=written,
        who=headers.get(f"{_WRITTEN}Who", ""),
        why=headers.get(f"{_WRITTEN}Why", ""),
        where=headers.get(f"{_WRITTEN}Where", ""),
        tries=int(headers.get(f"{_WRITTEN}Tries", "1")),
        msg_id=headers.get(f"{_WRITTEN}Msg-Id", ""),
        trace_id=next(iter(headers.get("traceparent", "").split("-")[1:2]), ""),
        headers=kept,
        body=body,
    )


def again(letter: Letter) -> Message:
    """The original once more, with where it was said first: what it says is about that time.

    Its id is new, or the stream would take it for a repetition; and the same each time.
    """
    msg_id = f"{letter.msg_id or letter.where}/again/{letter.sequence}"
    return Message(
        letter.subject, letter.body, {**letter.headers, _SAID: str(letter.position), MSG_ID: msg_id}
    )


def first_said(headers: Mapping[str, str], *, before: int) -> int:
    """Where a message of a stream was said first that was said again; 0 for one that was not."""
    said = headers.get(_SAID, "")
    return int(said) if said.isdecimal() and int(said) < before else 0
