"""Which raw events are meant: the options that `tajo log` and `tajo mapping` share, and what fits them."""

from typing import Annotated

import typer

from shared.event import epoch_ms
from shared.replay import Selection
from tajo.selecting import EMPTY, SUBJECT, SelectionError, sequences


def _named(sids: list[str] | None) -> list[str] | None:
    if sids and not all(sid.strip() for sid in sids):
        raise typer.BadParameter("empty: give the sid of a task, a conversation or a call")
    return sids


Subjects = Annotated[
    list[str] | None,
    typer.Option("--subjects", help="Of the stream TWILIO, with * and >: twilio.*.*.taskrouter.task.>"),
]
Since = Annotated[
    str | None, typer.Option(help="What happened then or later: 2026-11-20, or 2026-11-20T10:00:00Z.")
]
Until = Annotated[str | None, typer.Option(help="What happened before.")]
Sequence = Annotated[str | None, typer.Option(help="Where it stands in the log: 17, 17-40, 17- or -40")]
Task = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        help="All of the interaction this names: a task's, conversation's or call's sid.",
        callback=_named,
    ),
]


def selection(
    subjects: list[str] | None = None,
    since: str | None = None,
    until: str | None = None,
    sequence: str | None = None,
    task: list[str] | None = None,
) -> Selection:
    """What the options mean.  Raises typer.BadParameter, in the words of the options."""
    for subject in subjects or ():
        if not SUBJECT.fullmatch(subject):
            raise typer.BadParameter(
                f"{subject} is no subject of TWILIO, such as twilio.*.*.taskrouter.task.completed"
            )
    try:
        first, last = sequences(sequence)
    except SelectionError as error:
        raise typer.BadParameter(str(error)) from None
    return Selection(
        subjects=tuple(subjects or ()),
        since_ms=_moment("--since", since),
        until_ms=_moment("--until", until),
        first=first,
        last=last,
        tasks=tuple(task or ()),
    )


def in_time(what: Selection, time: str) -> bool:
    """Whether what happened then is meant; what says no time is meant where no time is asked for."""
    if what.since_ms is None and what.until_ms is None:
        return True
    try:
        at = epoch_ms(time)
    except ValueError:
        return False
    return (what.since_ms is None or at >= what.since_ms) and (what.until_ms is None or at < what.until_ms)


def _moment(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else epoch_ms(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{option} {text or EMPTY} is no date: write 2026-11-20, or 2026-11-20T08:00:00Z"
        ) from None
