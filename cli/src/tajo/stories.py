"""`tajo mapping test`: stories that people keep for their own mapping, run and made."""

import difflib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct
from nats.aio.client import Client

from mapper.story import BadStoryError, Failure, given, run, tell, then_of, to_json
from shared.cloudevent import Logged, to_line
from shared.config import Config
from shared.connector_file import ConfigError, load
from shared.event import RawEvent
from tajo import log_reading
from tajo.asking import asking
from tajo.log_selection import Task, selection
from tajo.output import FAILED, NATS_URL, AsJson, NatsUrl, err, failure, out, reading
from tajo.output import show as show_json
from tajo.pseudonyms import Pseudonyms

GIVEN, MAPPING, THEN = "given.ndjson", "mapping.yaml", "then.json"
GIVEN_BYTES_MAX = 256 * 1024**2  # of a story; it is read whole

STORIES = Path("stories")


class Told(Struct):
    """How a story ended."""

    story: str
    passed: bool
    updated: bool = False
    why: str = ""  # it could not be run
    failures: list[Failure] = []


def run_stories(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR]…", help="Stories, or folders of stories; else stories/."),
    ] = None,
    config: Annotated[
        Path,
        typer.Option(envvar="TAJO_CONFIG", help="The connector file, for stories without a mapping.yaml."),
    ] = Path("config/tajo.yaml"),
    new: Annotated[str, typer.Option(help="Make a story of this name of what the log says of --task.")] = "",
    task: Task = None,
    nats_url: NatsUrl = NATS_URL,
    *,
    redact: Annotated[
        bool, typer.Option("--redact", help="With --new: as `tajo log export --redact`.")
    ] = False,
    update: Annotated[bool, typer.Option("--update", help="Write each then.json as it ends now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run stories: in their order, all heard twice, and shuffled; they must end as their then.json says."""
    among = folders or [STORIES]
    if bool(new) != bool(task):
        raise typer.BadParameter("--new NAME and --task SID need each other")
    if new:
        if len(among) > 1 or Path(new).name != new or new.startswith("."):
            raise typer.BadParameter("--new is a folder's name, in one DIR")
        among = [_made(among[0] / new, nats_url, task or [], config, redact=redact, as_json=as_json)]
    found = _stories(among)
    if not found:
        where = ", ".join(map(str, among))
        raise failure(
            f"no story in {where}", f"a story is a folder with {GIVEN} and {THEN}", code=FAILED, as_json=as_json
        )  # fmt: skip
    told = [_run(story, config, update=update or bool(new)) for story in found]
    if as_json:
        show_json({"passed": all(one.passed for one in told), "stories": told})
    else:
        for one in told:
            _print(one)
        failed = sum(not one.passed for one in told)
        out.print(f"{len(told) - failed} passed, {failed} failed", highlight=False)
    if not all(one.passed for one in told):
        raise typer.Exit(FAILED)


def _stories(among: Sequence[Path]) -> list[Path]:
    """Folders with a given.ndjson: these, and those in them."""
    found = [
        file.parent
        for folder in among
        for file in ([folder / GIVEN] if (folder / GIVEN).exists() else sorted(folder.glob(f"*/{GIVEN}")))
    ]
    return list(dict.fromkeys(found))


def _run(story: Path, config: Path, *, update: bool) -> Told:
    told = Told(str(story), passed=False)
    try:
        mapping = load(story / MAPPING if (story / MAPPING).exists() else config)
        heard = given(_bytes(story / GIVEN))
        if update:
            told.updated = _updated(story, mapping, heard)
        if not (story / THEN).exists():
            told.why = f"no {THEN}: --update writes it"
            return told
        told.failures = run(mapping, heard, then_of(_bytes(story / THEN)))
    except (BadStoryError, ConfigError) as error:
        told.why = str(error)
    except OSError as error:
        told.why = f"{error.filename} cannot be read or written: {error.strerror}"
    told.passed = not (told.why or told.failures)
    return told


def _bytes(file: Path) -> bytes:
    if file.stat().st_size > GIVEN_BYTES_MAX:
        raise BadStoryError(f"{file.name}: larger than {GIVEN_BYTES_MAX // 1024**2} MiB")
    return file.read_bytes()


def _updated(story: Path, mapping: Config, heard: Sequence[RawEvent]) -> bool:
    """Write how it ends; whether that is news."""
    file = story / THEN
    now = to_json(tell(mapping, heard))
    if file.exists() and file.read_bytes() == now:
        return False
    file.write_bytes(now)
    return True


def _made(folder: Path, nats_url: str, task: list[str], config: Path, *, redact: bool, as_json: bool) -> Path:
    """The folder, with what was heard; who runs it writes how it ends."""
    if folder.exists():
        raise failure(f"{folder} is there already", "give another name", code=FAILED, as_json=as_json)
    with reading(as_json=as_json):
        load(config)
    pseudonyms = Pseudonyms(secrets.token_bytes(32)) if redact else None

    async def lines(broker: Client) -> list[bytes]:
        what = selection(task=task)
        return [
            to_line(
                Logged(pseudonyms.of(one.message) if pseudonyms else one.message, one.sequence, one.stored)
            )
            async for one in log_reading.selected(broker, what)
        ]

    found = asking(nats_url, lines, as_json=as_json)
    if not found:
        raise failure(
            f"the log knows nothing of {', '.join(task)}", "`tajo log ls` shows what is there", code=FAILED, as_json=as_json
        )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / GIVEN).write_bytes(b"".join(line + b"\n" for line in found))
    if not redact:
        err.print(
            f"who the customer is stands in {folder / GIVEN}: --redact replaces it",
            style="yellow",
            soft_wrap=True,
        )
    return folder


def _print(told: Told) -> None:
    sign = "[green]✓[/green]" if told.passed else "[red]✗[/red]"
    out.print(f"{sign} ", end="")
    out.print(f"{told.story}{', written' if told.updated else ''}{f': {told.why}' if told.why else ''}",
              markup=False, highlight=False, soft_wrap=True)  # fmt: skip
    for failure_ in told.failures[:1]:
        lines = difflib.unified_diff(
            failure_.expected.splitlines(), failure_.found.splitlines(), THEN, failure_.way, lineterm="", n=2
        )
        for line in lines:
            out.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)
    if len(told.failures) > 1:
        others = ", ".join(failure_.way for failure_ in told.failures[1:])
        out.print(f"    and also: {others}", markup=False, highlight=False, soft_wrap=True)
