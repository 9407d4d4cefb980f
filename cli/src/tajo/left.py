"""What of the past Brevo is still to be told, and how long that takes.  Pure: the time is an argument."""

import msgspec
from msgspec import Struct

from shared.heartbeat import BrevoSinkCounts
from shared.topology import BREVO_SINK_PAST
from tajo.status import Status

SEEN_S = 20.0  # after which the rate seen tells more than Brevo's limits: a batch takes some seconds to fill

_SINK = ("brevo-sink ", "no brevo-sink ")  # how findings of it begin


class Left(Struct, frozen=True, kw_only=True):
    """Commands that may wait, whoever said them: a replay, a backfill."""

    commands: int | None  # not ended; None: the durable is not there
    per_second: float | None = None  # contacts, of Brevo's limits; None where nobody knows
    dead: int = 0  # letters there are, of all kinds
    why: str = ""  # Brevo is told nothing just now


def left(found: Status) -> Left:
    """Read it off what a deployment says of itself."""
    lag = found.lag.get(BREVO_SINK_PAST.durable)
    said = Left(
        commands=lag.pending + lag.in_hand if lag else None,
        dead=found.dead_letters or 0,
        why=next(
            (one.cause for one in found.findings if one.level == "error" and one.what.startswith(_SINK)), ""
        ),
    )
    for one in found.services:
        if one.service == "brevo-sink" and one.role == "working":
            try:
                counts = msgspec.convert(one.counts, BrevoSinkCounts)
            except msgspec.ValidationError:  # of another version
                continue
            return msgspec.structs.replace(said, per_second=counts.contacts_per_second)
    return said


def seconds_left(commands: int, *, done: int, seconds: float, per_second: float | None) -> float | None:
    """How long until these have ended, after so many did in a time; None where nobody can say yet.

    First by Brevo's limits, as though each were a contact told singly, which is the longest it takes; then by what is seen.
    """
    if seconds >= SEEN_S and done > 0:
        return commands * seconds / done
    return commands / per_second if per_second else None
