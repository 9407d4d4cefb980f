"""What became of a message: one value, decided in one place, carried out in another."""

from msgspec import Struct


class Done(Struct, frozen=True):
    """It took effect, now or before; a duplicate is Done.  JetStream: ack."""


class Retry(Struct, frozen=True):
    """It may work later.  JetStream: the message stays ours, and is tried again."""

    why: str
    after_s: float


class Reject(Struct, frozen=True):
    """It can never work.  JetStream: a dead letter first, then ack."""

    why: str


class Pause(Struct, frozen=True):
    """Nothing of the kind can work until somebody acts: stop consuming, burn nothing."""

    why: str
    remedy: str
