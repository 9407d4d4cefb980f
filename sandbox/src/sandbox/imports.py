"""Brevo's imports of contacts: a process each, one at a time, with files of what was refused.

https://developers.brevo.com/reference/importcontacts-1.  Read off the documentation, and from what users met: rows are
matched by EXT_ID and then by email, two contacts that a row brings together become one, a `false` overwrites nothing,
and what is refused is told of nowhere but in files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sandbox.contact import canonical
from sandbox.http import Answer, Asked, refused

BODY_BYTES_MAX = 10 * 1024**2
FILES = (
    "invalid_emails", "duplicate_contact_id", "duplicate_ext_id", "duplicate_email_id", "duplicate_phone_id",
    "duplicate_whatsapp_id", "duplicate_landline_number_id",
)  # fmt: skip

Merge = Callable[[Mapping[str, Any], set[int], datetime], None]


@dataclass
class Process:
    """One import: what was asked, and the rows of each file."""

    id: int
    rows: list[dict[str, Any]]
    list_ids: set[int]
    due: float  # when it is done, by the account's clock
    status: str = "queued"
    rejects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass
class Imports:
    """The imports of one account; `merge` writes a row to its contacts."""

    lists: Mapping[int, str]
    merge: Merge
    takes_s: float = 0.0  # each, one after the other
    fails: int = 0  # so many of the next ones fail as a whole
    refused_emails: dict[str, str] = field(default_factory=dict)  # by request: email → the file it goes to
    processes: dict[int, Process] = field(default_factory=dict)
    _last_id: int = 77

    def begin(self, asked: Asked, now: datetime) -> Answer:
        """POST /contacts/import: 202 with the process, or 400."""
        body = asked.json()
        rows, lists = body.get("jsonBody"), body.get("listIds")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
            return refused(400, "missing_parameter", "fileUrl or fileBody or jsonBody is missing")
        if not lists and not body.get("newList"):
            return refused(400, "missing_parameter", "listIds or newList is missing")
        if not all(id_ in self.lists for id_ in lists or ()):
            return refused(400, "invalid_parameter", "List ids are invalid")
        if len(asked.body) > BODY_BYTES_MAX:
            return refused(400, "out_of_range", "The import is larger than 10 MB")
        self._last_id += 1
        before = max((one.due for one in self.processes.values()), default=0.0)
        due = max(before, now.timestamp()) + self.takes_s
        self.processes[self._last_id] = Process(self._last_id, rows, set(lists or ()), due)
        return Answer(202, {"processId": self._last_id})

    def read(self, id_: str, url: str, now: datetime) -> Answer:
        """GET /processes/{id}: 200 with its status, or 404.  `url` is where the sandbox is called."""
        process = self.processes.get(int(id_) if id_.isdecimal() else 0)
        if process is None:
            return refused(404, "invalid_parameter", "processId is invalid")
        if process.status in ("queued", "in_process"):
            self._go_on(process, now)
        shown: dict[str, Any] = {"id": process.id, "name": "IMPORTUSER", "status": process.status}
        if process.status == "completed":
            files = {
                name: f"{url}/_sandbox/imports/{process.id}/{name}.csv" if process.rejects.get(name) else None
                for name in FILES
            }
            shown["info"] = {"import": files}
        return Answer(200, shown)

    def file(self, id_: str, name: str) -> Answer:
        """What was refused, as CSV."""
        process = self.processes.get(int(id_) if id_.isdecimal() else 0)
        if process is None or name not in FILES:
            return refused(404, "document_not_found", "No such file")
        rows = [
            f"{row.get('email', '')};{row.get('attributes', {}).get('EXT_ID', '')}"
            for row in process.rejects.get(name, [])
        ]
        return Answer(200, "\n".join(["EMAIL;EXT_ID", *rows]) + "\n")

    def _go_on(self, process: Process, now: datetime) -> None:
        if now.timestamp() < process.due:
            process.status = "in_process"
            return
        if self.fails:
            self.fails -= 1
            process.status = "failed"
            return
        for row in process.rows:
            email = canonical("email", row.get("email", ""))
            file = self.refused_emails.get(email) or ("" if email else "invalid_emails")
            if file:
                process.rejects.setdefault(file, []).append(row)
            else:
                self.merge(row, process.list_ids, now)
        process.status = "completed"
