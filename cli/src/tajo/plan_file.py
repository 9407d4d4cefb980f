"""A plan as a file: what is looked at now is what is applied later.  It holds what customers are called."""

import os
from pathlib import Path

import msgspec

from shared.replay import Plan
from tajo.replay import ReplayError

FORMAT = 1


def write(plan: Plan, path: Path) -> None:
    """All of it or nothing, for its owner alone.  Raises ReplayError."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(plan, order="deterministic"), indent=2))
        beside.replace(path)
    except OSError as error:
        raise ReplayError(
            f"{path} cannot be written: {error.strerror}",
            f"tajo replay --plan --id {plan.id} --out FILE writes it elsewhere",
        ) from error


def read(path: Path) -> Plan:
    """What `write` wrote.  Raises ReplayError."""
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except OSError as error:
        raise ReplayError(
            f"{path} cannot be read: {error.strerror}", "name the file that `tajo replay --plan` wrote"
        ) from error
    except msgspec.MsgspecError as error:
        raise ReplayError(f"{path} holds no plan", "name the file that `tajo replay --plan` wrote") from error
    if plan.format != FORMAT:
        raise ReplayError(f"{path} is of another version", "make the plan with this one")
    return plan
