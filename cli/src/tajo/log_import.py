"""`tajo log import`: events that another log held, into this one.

The order, and why a repetition changes nothing: 1. every line is read and checked, and one that is wrong ends it before
anything is stored; 2. the ids the log has already are looked for in all of it, because its dedup window is two hours;
3. the rest is published in groups, in the order of the file, with the ids it had, but for what happened to somebody before
they were forgotten here.  What is cut off is done by doing it again.
"""

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from typing import BinaryIO

from msgspec import Struct
from nats.aio.client import Client

from mapper.heard import UnreadableError, read
from mapper.said import Reading
from mapper.search import is_forgotten
from shared import erasure
from shared.cloudevent import LINE_BYTES_MAX, NotACloudEventError, event_of, from_line
from shared.message import MSG_ID, Message
from shared.publish import ATOMIC_MAX, publish
from shared.replay import Selection
from shared.tombstone import Tombstones
from shared.topology import MESSAGE_BYTES_MAX
from tajo.log_reading import Progress, bounds, selected

WRONG_MAX = 20  # lines that are wrong and are told of one by one
GROUP_BYTES_MAX = MESSAGE_BYTES_MAX  # of bodies published at once, beyond the first
LINES_MAX = 10_000_000  # of a file, some 13 GB; their ids are kept in memory, 100 bytes each


class Wrong(Struct, frozen=True):
    """A line that cannot be read, and why."""

    line: int
    why: str


class Checked(Struct):
    """What is in a file."""

    events: int = 0
    repeated: int = 0  # lines whose id an earlier line has: the first counts
    wrong: int = 0
    first_wrong: list[Wrong] = []  # at most WRONG_MAX
    ids: set[str] = set()


class Imported(Struct):
    """What became of it."""

    events: int
    repeated: int
    known: int = 0  # in the log already
    forgotten: int = 0  # left out: it happened to somebody before they were forgotten
    stored: int = 0
    silent: int = 0  # of those stored, what the broker took for a repetition of what the log holds no more


def lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not empty, with their numbers; None for one that is too long."""
    number = 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            while line and not line.endswith(b"\n"):
                line = file.readline(LINE_BYTES_MAX)
            yield number, None
        elif line.strip():
            yield number, line


def check(file: BinaryIO, on_read: Progress) -> Checked:
    """Read all of it, from its beginning; nothing is stored."""
    found = Checked()
    size = file.seek(0, 2)
    file.seek(0)
    for number, line in lines(file):
        try:
            id_ = _id(line, found.events)
        except NotACloudEventError as error:
            found.wrong += 1
            if len(found.first_wrong) < WRONG_MAX:
                found.first_wrong.append(Wrong(number, str(error)))
            continue
        found.events += 1
        found.repeated += id_ in found.ids
        found.ids.add(id_)
        on_read(file.tell(), size)
    return found


def _id(line: bytes | None, before: int) -> str:
    """A line's, with so many events before it.  Raises NotACloudEventError."""
    if line is None:
        raise NotACloudEventError(f"longer than {LINE_BYTES_MAX // 1024**2} MiB")
    if before >= LINES_MAX:
        raise NotACloudEventError(f"more than {LINES_MAX:,} events: split the file")
    return from_line(line).headers[MSG_ID]


async def known(connection: Client, ids: set[str], on_read: Progress) -> set[str]:
    """Those of the ids that the log has."""
    found: set[str] = set()
    async with aclosing(selected(connection, Selection(), headers_only=True, on_read=on_read)) as events:
        async for one in events:
            id_ = one.message.headers.get(MSG_ID, "")
            if id_ in ids:
                found.add(id_)
    return found


def forgotten(tombstones: Tombstones, message: Message) -> bool:
    """Whether it happened to somebody before they were forgotten; of what nobody can read, all it holds counts."""
    event = event_of(message)
    try:
        heard = read(event, Reading())
    except UnreadableError:
        heard = None
    return is_forgotten(tombstones, event, heard)


async def store(
    connection: Client, file: BinaryIO, have: set[str], into: Imported, on_stored: Progress
) -> None:
    """Publish what the log has not, in the order of the file; `into` says how far it is.

    Raises NotPublishedError and nats' errors.
    """
    tombstones = (await erasure.load(connection)).tombstones()
    file.seek(0)
    seen, group, size = set(have), list[Message](), 0
    of = into.events - into.repeated - len(have)
    _, before = await bounds(connection, Selection())
    for _, line in lines(file):
        message = from_line(line or b"")
        if (id_ := message.headers[MSG_ID]) in seen:
            continue
        seen.add(id_)
        if forgotten(tombstones, message):
            into.forgotten += 1
            continue
        if group and (len(group) == ATOMIC_MAX or size + len(message.body) > GROUP_BYTES_MAX):
            await _publish(connection, group, into)
            on_stored(into.stored + into.forgotten, of)
            group, size = [], 0
        group.append(message)
        size += len(message.body)
    await _publish(connection, group, into)
    _, after = await bounds(connection, Selection())
    into.silent = max(into.stored - (after - before), 0)


async def _publish(connection: Client, group: Sequence[Message], into: Imported) -> None:
    await publish(connection, group)
    into.stored += len(group)
