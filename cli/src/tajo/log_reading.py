"""Reading raw events out of the log, for commands: what a selection means, the latest of it, what belongs together."""

from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import aclosing
from datetime import UTC, datetime

import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from mapper.heard import Heard, UnreadableError, read
from mapper.kin import Kin, of_interaction
from mapper.said import Reading
from shared import past
from shared.cloudevent import Logged, event_of
from shared.event import rfc3339
from shared.message import Message
from shared.replay import Selection
from shared.topology import TWILIO
from tajo.log_selection import in_time

BATCH = 500  # messages read at once; of 2.5 KB each, and 8 MiB at most
SKEW_MS = 3600 * 1000  # how much earlier than it happened by Twilio's clock an event may be stored by ours
WINDOW = 1000  # messages looked at first for the latest; then four times as many, and so on

Progress = Callable[[int, int], None]  # how many of how many were read


def silent(_done: int, _of: int) -> None:
    """For who shows no progress."""


class SubjectsError(Exception):
    """The broker does not take these subjects together."""


async def selected(
    connection: Client, what: Selection, *, headers_only: bool = False, on_read: Progress = silent
) -> AsyncGenerator[Logged, None]:
    """What is meant, in the order of the log.  Raises SubjectsError, nats' errors and OSError."""
    first, last = await bounds(connection, what)
    meant = await of_tasks(connection, what.tasks, on_read) if what.tasks else None
    async with aclosing(
        _within(connection, what, first, last, meant=meant, headers_only=headers_only, on_read=on_read)
    ) as events:
        async for one in events:
            yield one


async def latest(
    connection: Client,
    what: Selection,
    count: int,
    *,
    headers_only: bool = False,
    fits: Callable[[Logged], bool] = lambda _: True,
) -> list[Logged]:
    """The last `count` of what is meant and fits, in the order of the log, without reading all of it where that can be."""
    first, last = await bounds(connection, what)
    meant = await of_tasks(connection, what.tasks, silent) if what.tasks else None
    width, found = max(WINDOW, 2 * count), list[Logged]()
    while last >= first and len(found) < count:
        lower = max(first, last - width + 1)
        window = _within(
            connection, what, lower, last, meant=meant, headers_only=headers_only, on_read=silent
        )
        found = [one async for one in window if fits(one)] + found
        last, width = lower - 1, width * 4
    return found[-count:] if count > 0 else []


async def bounds(connection: Client, what: Selection) -> tuple[int, int]:
    """The first and the last sequence there are of those that are meant."""
    state = (await connection.jetstream(timeout=5).stream_info(TWILIO.name)).state
    return max(what.first, state.first_seq, 1), min(what.last or state.last_seq, state.last_seq)


async def of_tasks(connection: Client, sids: Iterable[str], on_read: Progress = silent) -> set[int]:
    """Where all stands that belongs to the interactions these sids name."""
    return (await kin(connection, Reading(), of_interaction, on_read)).of(names=sids)


async def kin(
    connection: Client, reading: Reading, names: Callable[[Heard], Iterable[str]], on_read: Progress = silent
) -> Kin:
    """What belongs together, of the whole log: it is read once."""
    found = Kin()
    first, last = await bounds(connection, Selection())
    async with aclosing(
        _within(connection, Selection(), first, last, meant=None, headers_only=False, on_read=on_read)
    ) as events:
        async for one in events:
            try:
                heard = read(event_of(one.message), reading)
            except (UnreadableError, ValueError):
                continue
            if heard is not None:
                found.note(one.sequence, names(heard))
    return found


async def at(
    connection: Client, sequences: Collection[int], on_read: Progress = silent
) -> AsyncGenerator[Logged, None]:
    """What stands at these sequences, in their order."""
    if sequences:
        bounds_ = (min(sequences), max(sequences))
        async with aclosing(
            _within(connection, Selection(), *bounds_, meant=sequences, headers_only=False, on_read=on_read)
        ) as events:
            async for one in events:
                yield one


async def _within(
    connection: Client,
    what: Selection,
    first: int,
    last: int,
    *,
    meant: Collection[int] | None,
    headers_only: bool,
    on_read: Progress,
) -> AsyncGenerator[Logged, None]:
    since = (
        None if what.since_ms is None
        else datetime.fromtimestamp(max(what.since_ms - SKEW_MS, 0) / 1000, UTC)
    )  # fmt: skip
    batches = past.read(
        connection, TWILIO.name, after=first - 1, to=last, since=since,
        headers_only=headers_only, subjects=what.subjects, batch=BATCH,
    )  # fmt: skip
    try:
        async with aclosing(batches):
            async for messages in batches:
                for message in messages:
                    one = _logged(message)
                    if (meant is None or one.sequence in meant) and in_time(
                        what, one.message.headers.get("ce-time", "")
                    ):
                        yield one
                on_read(messages[-1].metadata.sequence.stream - first + 1, last - first + 1)
    except nats.js.errors.BadRequestError as error:
        if not what.subjects:
            raise
        raise SubjectsError(str(error.description)) from error


def _logged(message: Msg) -> Logged:
    metadata = message.metadata
    stored = rfc3339(round(metadata.timestamp.timestamp() * 1000))
    return Logged(
        Message(message.subject, message.data, message.headers or {}), metadata.sequence.stream, stored
    )
