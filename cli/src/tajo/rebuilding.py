"""`tajo replay --into NAME`: how it is asked for, watched, and said."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from shared import log
from shared.connector_file import load
from tajo import apart, certificate
from tajo.broker import run
from tajo.certificate import Certificate
from tajo.into import RefusedError, Wanted, rebuild
from tajo.nats_server import NoNatsServerError
from tajo.output import FAILED, INTERRUPTED, UNAVAILABLE, UNUSABLE, err, failure, out, reaching, reading, show
from tajo.readback import ReadBackError
from tajo.supervise import GivenUpError
from tajo.target import Target, target
from tajo.up import CannotStartError


def into(
    name: str,
    *,
    config: Path,
    data_dir: Path,
    nats_config: Path,
    nats_url: str,
    send_old_events: bool,
    as_json: bool,
) -> None:
    """Rebuild everything in the account NAME, or go on with it; print a certificate.  Ends with 0 only if it is equal."""
    with reading(as_json=as_json):
        there = target(name, os.environ, data_dir)
        told = load(config)
        wanted = Wanted(
            source=nats_url, config=told, mapping=config.read_text(encoding="utf-8"), nats_config=nats_config,
            send_old_events=send_old_events, event_age_max_s=told.flex.replay.event_age_max_s,
        )  # fmt: skip
    if not nats_config.exists():
        raise failure(
            f"no {nats_config}: run this in the repository, or name it with --nats-config",
            code=UNUSABLE, as_json=as_json,
        )  # fmt: skip
    log.set_up("tajo", level="error")
    there.folder.mkdir(parents=True, exist_ok=True)
    there.folder.chmod(0o700)  # it holds who the customers are
    found = _rebuilt(there, wanted, as_json=as_json)
    if as_json:
        show(found)
    else:
        certificate.show(found, out)
        out.print(f"the certificate: {there.folder / 'certificate.json'}", highlight=False, soft_wrap=True)
    if not found.equal:
        raise typer.Exit(FAILED)


def _rebuilt(there: Target, wanted: Wanted, *, as_json: bool) -> Certificate:
    try:
        with reaching(wanted.source, as_json=as_json), apart.alone(there.folder) as lock, _bars() as on_look:
            return run(rebuild(there, wanted, lock=lock, on_look=on_look, say=_say))
    except apart.BusyError as error:
        remedy = "wait until it has ended; if it was killed, its broker and sink end within half a minute"
        raise failure(str(error), remedy, code=FAILED, as_json=as_json) from error
    except RefusedError as error:
        raise failure(str(error), error.remedy, code=FAILED, as_json=as_json) from error
    except ReadBackError as error:
        remedy = f"{error.remedy} (of the account {there.name})"
        raise failure(str(error), remedy, code=UNAVAILABLE, as_json=as_json) from error
    except (CannotStartError, NoNatsServerError, GivenUpError) as error:
        remedy = f"its log stands in {there.folder}"
        raise failure(str(error), remedy, code=UNUSABLE, as_json=as_json) from error
    except KeyboardInterrupt as error:
        err.print("Stopped.  The same command goes on from there.")
        raise typer.Exit(INTERRUPTED) from error


def _say(line: str) -> None:
    err.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _bars() -> Iterator["Look"]:
    """A bar for each thing that takes time, with how long it still will; nothing where there is no terminal."""
    bars = Progress(
        TextColumn("{task.description:<13}"), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn(),
        console=err, disable=not err.is_terminal,
    )  # fmt: skip
    with bars:
        yield Look(bars)


class Look:
    """Told how far each thing is."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """So many of so many."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
