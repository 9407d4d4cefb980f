"""The body of a raw event, for a person's eyes.  Pure."""

import base64
from typing import Any

import msgspec
from yarl import query_to_pairs

from shared.body import FIELDS_MAX, NOT_JSON


def as_text(body: bytes) -> str:
    """As it is; what is no text, in base64."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode()


def pretty(body: bytes) -> str:
    """JSON in lines, a form decoded, a field a line, and JSON inside of it in lines too."""
    text = as_text(body)
    if text[:1] in ("{", "["):
        return _json(text)
    try:
        fields = query_to_pairs(text, max_fields=FIELDS_MAX)
    except ValueError:
        return text
    if not fields or "=" not in text:
        return text
    width = max(len(name) for name, _ in fields)
    return "\n".join(f"{name:<{width}}  {_json(value)}" for name, value in fields)


def _json(text: str) -> str:
    if text[:1] not in ("{", "["):
        return text
    try:
        value: Any = msgspec.json.decode(text)
        return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except NOT_JSON:
        return text
