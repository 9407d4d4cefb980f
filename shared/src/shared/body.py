"""Bodies that others write, of whatever size and depth.  Pure."""

from typing import Any

import msgspec

FIELDS_MAX = 1000  # of a form; a TaskRouter callback has some 40
NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises: of what is none or has another shape, of bytes that are no text, of what is nested too deep."""


def json_object(body: bytes) -> dict[str, Any]:
    """The object it holds; {} for anything else."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except NOT_JSON:
        return {}
