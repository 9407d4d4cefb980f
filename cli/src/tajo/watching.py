"""What the commands that watch a replay share: bars, what is said when nobody begins, and how they end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shared.replay import Replay, State
from tajo.output import FAILED, UNAVAILABLE, err, failure
from tajo.readback import ReadBackError
from tajo.replay import ReplayError

UNBEGUN_S = 10.0  # after which we say that nobody begins


def bars() -> Progress:
    """Bars on a terminal, and nothing elsewhere.  Each task has what is `said` of it."""
    return Progress(
        TextColumn("{task.description:<9}"), BarColumn(30), TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[said]}"), TimeRemainingColumn(), console=err, transient=True,
        disable=not err.is_terminal,
    )  # fmt: skip


def nobody_begins(state: State) -> Callable[[Replay], None]:
    """To be called at each look: says once that no mapper has begun, where it is in this state for UNBEGUN_S."""
    began = time.monotonic()
    said = False

    def look(now: Replay) -> None:
        nonlocal said
        if not said and now.state == state and time.monotonic() - began > UNBEGUN_S:
            said = True
            why = f": {now.why}" if now.why else ""
            err.print(
                f"The mapper has not begun yet{why}: it does one replay after the other, or does not run; `tajo connectors status twilio-flex` says which.",
                style="yellow", soft_wrap=True, markup=False, highlight=False,
            )  # fmt: skip

    return look


@contextmanager
def failing(*, as_json: bool) -> Iterator[None]:
    """What prevents it is said, with what to do, and is the exit code."""
    try:
        yield
    except ReplayError as error:
        raise failure(str(error), error.remedy, code=FAILED, as_json=as_json) from error
    except ReadBackError as error:
        raise failure(str(error), error.remedy, code=UNAVAILABLE, as_json=as_json) from error
