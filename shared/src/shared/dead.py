"""A dead letter: the original bytes and headers of what could not be handled, and why, where, who, tries."""

from shared.message import MSG_ID, Message

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
            **({"Tajo-Dead-Msg-Id": headers[MSG_ID]} if MSG_ID in headers else {}),
            MSG_ID: f"dead/{who}/{msg_id}",
            "Tajo-Dead-Why": " ".join(why.split())[:500],  # a header holds one line
            "Tajo-Dead-Where": where,
            "Tajo-Dead-Who": who,
            "Tajo-Dead-Tries": str(tries),
        },
    )
