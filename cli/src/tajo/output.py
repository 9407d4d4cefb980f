"""How every command ends: what it prints, where, and with which code.

With --json a result is one JSON value on standard output, and nothing else is there; also that of a check that
failed.  An error, which is instead of a result, is one JSON value on standard error: {"error": {"code", "what",
"remedy"}}.  Wrong usage is answered in words, because it is a person's.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import nats.errors
import typer
from rich.console import Console

from shared.connector_file import ConfigError
from shared.publish import NotPublishedError
from shared.settings import SettingsError
from tajo.broker import DeniedError
from tajo.nats_server import address

FAILED = 1
UNAVAILABLE = os.EX_UNAVAILABLE  # 69
UNUSABLE = os.EX_CONFIG  # 78
INTERRUPTED = 130

AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on standard output, for programs.")]
NatsUrl = Annotated[str, typer.Option(envvar="TAJO_NATS_URL", help="NATS server.")]
NATS_URL = "nats://127.0.0.1:4222"

out, err = Console(), Console(stderr=True)


def show(value: Any) -> None:
    """Print a result as JSON."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.write(f"{text}\n")


def failure(what: str, remedy: str = "", *, code: int, as_json: bool) -> typer.Exit:
    """Say on standard error what prevented a result, and what to do.  Raise what is returned."""
    if as_json:
        error = {"error": {"code": code, "what": what, "remedy": remedy}}
        sys.stderr.write(f"{msgspec.json.encode(error).decode()}\n")
    else:
        err.print(what, style="red", markup=False, highlight=False, soft_wrap=True)
        if remedy:
            err.print(remedy, markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(code)


@contextmanager
def reaching(nats_url: str, *, as_json: bool) -> Iterator[None]:
    """A broker that does not answer, or not as ours would, ends the command with 69; settings for it, with 78."""
    try:
        yield
    except SettingsError as error:
        raise failure(str(error), code=UNUSABLE, as_json=as_json) from error
    except DeniedError as error:
        raise failure(str(error), error.remedy, code=UNAVAILABLE, as_json=as_json) from error
    except (NotPublishedError, nats.errors.Error, OSError) as error:
        host, port = address(nats_url)
        raise failure(
            f"no broker of ours at {host}:{port}: {type(error).__name__}",
            "is it running, is TAJO_NATS_URL right, and was `tajo bootstrap` done?",
            code=UNAVAILABLE,
            as_json=as_json,
        ) from error


@contextmanager
def reading(*, as_json: bool) -> Iterator[None]:
    """Settings or a connector file that cannot be used end the command with 78."""
    try:
        yield
    except (SettingsError, ConfigError) as error:
        raise failure(str(error), code=UNUSABLE, as_json=as_json) from error
