"""What follows from what was heard, and how it is said: commands as the messages that the outbox holds."""

from msgspec import Struct

from shared import command
from shared.command import Command, ContactUpsert, EventTrack
from shared.event import epoch_ms
from shared.message import Message
from shared.trace import because, follow

# What happened longer ago is history that is read, or read again, and may wait at Brevo.
PAST_MS = 3600 * 1000


class Made(Struct):
    """What follows from a batch: commands, a contact before its events, each with the trace that caused it."""

    commands: list[tuple[Command, str]]  # a contact's new name before the contact
    nobody: list[str]  # ids of commands given up: no identity came

    def messages(self, *, now_ms: int, heard_past: bool = False, stored_ms: int = 0) -> list[Message]:
        """The commands as messages; those of the past may wait for those of now."""
        return [
            to_message(
                one, cause, past=is_past(one, now_ms=now_ms, heard_past=heard_past), stored_ms=stored_ms
            )
            for one, cause in self.commands
        ]


def to_message(one: Command, cause: str, *, past: bool, stored_ms: int = 0) -> Message:
    """A command as the message that says it, in the trace of its cause; `stored_ms` as shared/command.py has it."""
    message = command.to_message(one, follow(cause), past=past, stored_ms=stored_ms)
    message.headers.update(because(cause))
    return message


def is_past(one: Command, *, now_ms: int, heard_past: bool) -> bool:
    """Whether a command may wait for those of what happens now: an event by its own time, else what was heard."""
    match one:
        case EventTrack():
            return epoch_ms(one.time) < now_ms - PAST_MS
        case ContactUpsert():
            return heard_past
        case _:  # what is done to a contact alone keeps its place before what is said after it
            return False
