"""`tajo dlq`: what could not be handled, by cause; and, when the cause is mended, all of it again in its order."""

import base64
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import nats.js.errors
import typer
from msgspec import Struct
from nats.aio.client import Client
from rich.markup import escape
from rich.table import Table

from shared import dead
from shared.dead import Letter
from shared.event import rfc3339
from shared.publish import publish
from shared.topology import DEAD
from tajo.broker import connected, run
from tajo.output import FAILED, NATS_URL, AsJson, NatsUrl, failure, out, reaching
from tajo.output import show as show_json

AT_ONCE = 500  # letters published, and then removed

app = typer.Typer(no_args_is_help=True, help="Dead letters: what could not be handled, and why.")

T = TypeVar("T")
Sequences = Annotated[list[int] | None, typer.Argument(help="Sequences in DEAD, as `ls --each` shows them.")]
Cause = Annotated[str, typer.Option(help="All whose cause holds this text.")]
Who = Annotated[str, typer.Option(help="All of this service.")]
Every = Annotated[bool, typer.Option("--all", help="All there are.")]


class Group(Struct, frozen=True):
    """Dead letters with one cause."""

    count: int
    who: str
    why: str
    first: str  # when the first of them was written
    last: str
    sequence: int  # of the first


def groups(letters: Sequence[Letter]) -> list[Group]:
    """By cause, the most frequent first."""
    found: dict[tuple[str, str], list[Letter]] = {}
    for letter in letters:
        found.setdefault((letter.who, letter.why), []).append(letter)
    made = (
        Group(len(of), who, why, of[0].written, of[-1].written, of[0].sequence)
        for (who, why), of in found.items()
    )
    return sorted(made, key=lambda group: (-group.count, group.sequence))


def chosen(letters: Sequence[Letter], sequences: Sequence[int], *, cause: str, who: str) -> list[Letter]:
    """Those meant, in the order their originals were said."""
    wanted = set(sequences)
    meant = (
        letter
        for letter in letters
        if (not wanted or letter.sequence in wanted) and cause in letter.why and who in ("", letter.who)
    )
    return sorted(
        meant, key=lambda letter: (letter.where.partition(":")[0], letter.position, letter.sequence)
    )


@app.command()
def ls(
    nats_url: NatsUrl = NATS_URL,
    *,
    each: Annotated[bool, typer.Option("--each", help="A line for each letter, not for each cause.")] = False,
    cause: Cause = "",
    who: Who = "",
    as_json: AsJson = False,
) -> None:
    """Show what there is, by cause, the most frequent first."""
    letters = chosen(_run(nats_url, _all, as_json=as_json), (), cause=cause, who=who)
    if as_json:
        show_json([_plain(one) for one in letters] if each else groups(letters))
        return
    if each:
        table = Table("sequence", "written", "who", "where", "tries", "why")
        for one in letters:
            table.add_row(str(one.sequence), one.written, one.who, one.where, str(one.tries), escape(one.why))
        if letters:
            out.print(table)
    else:
        for group in groups(letters):
            when = group.first if group.first == group.last else f"{group.first} to {group.last}"
            out.print(
                f"{group.count:>6} × {escape(group.why)}   [dim]{group.who}, {when}, the first is {group.sequence}[/dim]",  # noqa: RUF001
                soft_wrap=True, highlight=False,
            )  # fmt: skip
    out.print(f"{len(letters)} dead letter{'' if len(letters) == 1 else 's'}", highlight=False)


@app.command()
def show(
    sequence: Annotated[int, typer.Argument(help="Its sequence in DEAD.")],
    nats_url: NatsUrl = NATS_URL,
    *,
    as_json: AsJson = False,
) -> None:
    """Show one, with its body: what a customer wrote may stand there."""
    letters = _run(nats_url, _all, as_json=as_json)
    (letter,) = _some(chosen(letters, [sequence], cause="", who=""), as_json=as_json)
    if as_json:
        show_json(_plain(letter))
        return
    table = Table(show_header=False, box=None)
    for name, value in (
        ("why", letter.why), ("who", letter.who), ("where", letter.where), ("tries", letter.tries),
        ("written", letter.written), ("message id", letter.msg_id), ("trace", letter.trace_id),
    ):  # fmt: skip
        table.add_row(name, escape(str(value)))
    for name, value in letter.headers.items():
        table.add_row(name, escape(value))
    out.print(table)
    out.print(f"\n{_text(letter.body)}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def retry(
    sequences: Sequences = None,
    nats_url: NatsUrl = NATS_URL,
    *,
    cause: Cause = "",
    who: Who = "",
    every: Every = False,
    as_json: AsJson = False,
) -> None:
    """Say them again, in the order they were first said; mend the cause before.

    Each is published, and then removed here; a crash in between repeats with the same ids.
    """
    meant = _meant(nats_url, sequences, cause=cause, who=who, every=every, as_json=as_json)
    able = [letter for letter in meant if letter.subject]
    _run(nats_url, lambda connection: _again(connection, able), as_json=as_json)
    if as_json:
        show_json({"retried": len(able), "left": len(meant) - len(able)})
        return
    out.print(f"{len(able)} said again")
    if len(able) < len(meant):
        out.print(
            f"{len(meant) - len(able)} stay: they came from no stream, so their service must read them again"
        )


@app.command()
def drop(
    sequences: Sequences = None,
    nats_url: NatsUrl = NATS_URL,
    *,
    cause: Cause = "",
    who: Who = "",
    every: Every = False,
    as_json: AsJson = False,
) -> None:
    """Remove them for good."""
    meant = _meant(nats_url, sequences, cause=cause, who=who, every=every, as_json=as_json)
    _run(nats_url, lambda connection: _removed(connection, meant), as_json=as_json)
    if as_json:
        show_json({"dropped": len(meant)})
    else:
        out.print(f"{len(meant)} dropped")


def _meant(
    url: str, sequences: list[int] | None, *, cause: str, who: str, every: bool, as_json: bool
) -> list[Letter]:
    if not (sequences or cause or who or every):
        raise typer.BadParameter("say which: sequences, --cause, --who or --all")
    letters = _run(url, _all, as_json=as_json)
    return _some(chosen(letters, sequences or (), cause=cause, who=who), as_json=as_json)


def _some(letters: list[Letter], *, as_json: bool) -> list[Letter]:
    if not letters:
        raise failure("no such dead letter", code=FAILED, as_json=as_json)
    return letters


async def _all(connection: Client) -> list[Letter]:
    """What stands in DEAD just now, oldest first."""
    stream, letters = connection.jetstream(), []
    sequence, last = 0, (await stream.stream_info(DEAD.name)).state.last_seq
    while sequence < last:
        try:
            message = await stream.get_msg(
                DEAD.name, sequence + 1, subject=DEAD.subjects[0], next=True, direct=True
            )
        except nats.js.errors.NotFoundError:
            break
        sequence = message.seq or last
        written = rfc3339(round(message.time.timestamp() * 1000)) if message.time else ""
        headers, body = message.headers or {}, message.data or b""
        letters.append(dead.from_message(sequence=sequence, written=written, headers=headers, body=body))
    return letters


async def _again(connection: Client, letters: Sequence[Letter]) -> None:
    for start in range(0, len(letters), AT_ONCE):
        some = letters[start : start + AT_ONCE]
        await publish(connection, [dead.again(letter) for letter in some])
        await _removed(connection, some)


async def _removed(connection: Client, letters: Sequence[Letter]) -> None:
    stream = connection.jetstream()
    for letter in letters:
        await stream.delete_msg(DEAD.name, letter.sequence)


def _run(url: str, work: Callable[[Client], Coroutine[Any, Any, T]], *, as_json: bool) -> T:
    async def at_work() -> T:
        async with connected(url) as connection:
            return await work(connection)

    with reaching(url, as_json=as_json):
        return run(at_work())


def _text(body: bytes) -> str:
    """As text; what is none, in base64."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode()


def _plain(letter: Letter) -> dict[str, Any]:
    return {**msgspec.structs.asdict(letter), "body": _text(letter.body)}
