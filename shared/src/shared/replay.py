"""Replays: what shall be made anew of the log, a key for each in the bucket `replays`.

Whoever wants one writes it (`tajo replay`); the working mapper plans it, aside, in a process of its own, and writes how
far it is.  Its plan stands in the object store `plans`.  Who wants that plan done says so here, by its hash; the mapper
does it, or says why not; who asks again, once that is mended, sets `planned` and the hash again.  All write by
compare-and-swap.  What is kept of customers here is ext_ids: the mapper replaces what a selection calls them at once.

State is always made from the whole log: a selection says whom Brevo is told of again, never what is counted.
"""

from typing import Literal

import msgspec
from msgspec import Struct
from nats.js.kv import KeyValue

from shared import kv
from shared.plan import (
    Asked,
    Contacted,
    ContactLine,
    EventLine,
    Expected,
    Plan,
    Selection,
    Summary,
    Tracked,
    from_object,
    to_object,
)  # fmt: skip

__all__ = [
    "Asked", "ContactLine", "Contacted", "EventLine", "Expected", "Plan", "Replay", "Selection", "State", "Summary",
    "Tracked", "from_object", "read", "to_object", "write",
]  # fmt: skip

State = Literal["asked", "folding", "planned", "applying", "applied", "refused", "failed", "dropped"]
"""asked → folding → planned → applying → applied; `refused` and `failed` say why; `dropped`: its book is no more."""


class Replay(Struct, kw_only=True):
    """A replay, and how far it is."""

    asked: Asked
    state: State = "asked"
    sequence: int = 0  # of TWILIO: what its book includes
    to: int = 0  # and what it shall include
    mapping: str = ""  # hash of the mapping asked for
    plan: str = ""  # hash of the plan, once there is one
    apply: str = ""  # hash of the plan that somebody wants to be done
    commands: int = 0  # said to Brevo by applying it
    why: str = ""  # it was refused, failed, or does not go on just now
    applied_ms: int = 0

    @property
    def ended(self) -> bool:
        """Whether the mapper will do no more of it."""
        return self.state in ("applied", "refused", "failed", "dropped")


async def read(bucket: KeyValue, id_: str) -> tuple[int, Replay | None]:
    """Its revision, and the replay; None where there is none.  Raises nats' errors."""
    revision, value = await kv.read(bucket, id_)
    return revision, msgspec.json.decode(value, type=Replay) if value else None


async def write(bucket: KeyValue, replay: Replay, revision: int) -> int:
    """Write it over what had that revision; returns its own.  Raises KeyWrongLastSequenceError and nats' errors."""
    return await bucket.update(replay.asked.id, msgspec.json.encode(replay), last=revision)
