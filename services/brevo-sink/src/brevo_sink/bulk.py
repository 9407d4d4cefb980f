"""Which contacts may go by import, what is sent, and which of them were refused.  Pure.

An import merges contacts that share an identifier, and tells of a refusal in files only.  So a row goes only where it can
bring nobody together: the contact is known to have these identifiers already; or it is new to an account that was looked
at first, where no other contact and no other row has them.  A lost one is told singly.
https://developers.brevo.com/reference/importcontacts-1
"""

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from brevo_sink.request import fingerprint
from shared.body import json_object
from shared.command import ContactUpsert, Value

IMPORT_BYTES_MAX = 8 * 1024**2  # of 10 MB; the rest is for what a row says of itself
ROWS_MAX = 10_000  # so that a look at the files, and a failed one told singly, stay bearable

Status = Literal["waits", "completed", "failed"]


class Process(Struct, frozen=True):
    """How far an import is, and where the files of what it refused are."""

    status: Status
    files: tuple[str, ...] = ()


def importable(command: ContactUpsert, told: str, *, new: bool = False) -> bool:
    """Whether a contact of which Brevo was told these identifiers may go by import, or one that is `new` to it.

    Not with a `false`, which overwrites nothing there, and not without a list, which an import must have.
    https://github.com/sendinblue/APIv3-python-library/issues/95
    """
    return (
        bool(command.email and command.list_ids)
        and (new or told == fingerprint(command))
        and not any(value is False for value in command.attributes.values())
    )


def row(command: ContactUpsert, *, new: bool = False) -> dict[str, Any]:
    """What an import says of a contact: what identifies it in a word, and its attributes; the phone of a new one only."""
    attributes = {name: value for name, value in command.attributes.items() if new or name != "SMS"}
    return {"email": command.email, "attributes": {"EXT_ID": command.ext_id, **attributes}}


def body(commands: Sequence[ContactUpsert], new: Collection[str] = ()) -> dict[str, Any]:
    """The body of POST /contacts/import.  All commands have the same lists; `new` names those new to Brevo."""
    return {
        "jsonBody": [row(command, new=command.ext_id in new) for command in commands],
        "listIds": list(commands[0].list_ids),
        "updateExistingContacts": True,
        "emptyContactsAttributes": False,
        "disableNotification": True,
    }


def fitting(commands: Iterable[ContactUpsert]) -> int:
    """How many of these, from the first on, one import takes."""
    size = count = 0
    for command in commands:
        size += len(msgspec.json.encode(row(command, new=True))) + 1
        if size > IMPORT_BYTES_MAX or count == ROWS_MAX:
            break
        count += 1
    return count


def process_id(answer: bytes) -> int | None:
    """The process an import began, from its 202."""
    found = json_object(answer).get("processId")
    return found if isinstance(found, int) else None


def process(answer: bytes) -> Process:
    """From the answer of GET /processes/{id}.  `completed` does not mean that all rows are there."""
    said = json_object(answer)
    match said.get("status"):
        case "completed":
            info = said.get("info")
            files = info.get("import") if isinstance(info, dict) else None
            urls = files.values() if isinstance(files, dict) else ()
            return Process("completed", tuple(url for url in urls if isinstance(url, str) and url))
        case "failed" | "cancelled":
            return Process("failed")
        case _:
            return Process("waits")


def refused(commands: Iterable[ContactUpsert], files: Iterable[bytes]) -> set[str]:
    """Of which contacts a file tells, by their email or ext_id, wherever in a line that stands."""
    told = {cell for file in files for cell in _cells(file)}
    return {one.ext_id for one in commands if {(one.email or "").lower(), one.ext_id.lower()} & told}


def holds(shown: bytes, attributes: Mapping[str, Value]) -> bool:
    """Whether a contact, as GET /contacts/{identifier} shows it, has these attributes."""
    have = json_object(shown).get("attributes")
    return isinstance(have, dict) and all(
        _same(name, have.get(name), value) for name, value in attributes.items()
    )


def _same(name: str, one: Any, other: Value) -> bool:
    if name == "SMS":
        return str(one).lstrip("+0") == str(other).lstrip("+0")
    if isinstance(other, str):
        return str(one)[:10] == other[:10] if _is_day(other) else one == other
    return bool(one == other)


def _is_day(text: str) -> bool:
    return len(text) == 10 and text[4:5] == text[7:8] == "-"


def _cells(file: bytes) -> Iterator[str]:
    text = file.decode("utf-8-sig", errors="replace").replace(",", ";")
    for line in csv.reader(text.splitlines(), delimiter=";"):
        yield from (cell.strip().lower() for cell in line)
