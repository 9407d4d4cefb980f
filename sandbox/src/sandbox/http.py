"""HTTP as values: what was asked, and what is answered.  The judgement of the sandbox knows no connection."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class BadRequestError(Exception):
    """What was asked cannot be read or is not allowed; carries the answer to give."""

    def __init__(self, answer: "Answer") -> None:
        super().__init__(str(answer.body))
        self.answer = answer


@dataclass(frozen=True)
class Asked:
    """A request.  `path` is decoded and without the base; `query` has every value of a repeated name."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    body: bytes

    def one(self, name: str, default: str = "") -> str:
        """The last value of a query parameter."""
        return self.query.get(name, [default])[-1]

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """A query parameter that is a whole number within bounds.  Raises BadRequestError."""
        text = self.one(name, str(default))
        if not text.isdecimal() or not least <= int(text) <= most:
            raise BadRequestError(refused(400, "out_of_range", f"{name} must be between {least} and {most}"))
        return int(text)

    def json(self) -> dict[str, Any]:
        """The body as an object.  Raises BadRequestError."""
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise BadRequestError(refused(400, "bad_request", "Invalid JSON format"))
        return value


@dataclass(frozen=True)
class Answer:
    """A response: a JSON value, a text, or nothing."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def refused(status: int, code: str, message: str, **metadata: Any) -> Answer:
    """An error as Brevo words it: code, message, and metadata for contacts."""
    body: dict[str, Any] = {"code": code, "message": message}
    if metadata:
        body["metadata"] = metadata
    return Answer(status, body)
