"""A progress bar on standard error, where a person looks; nothing where a program does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tajo.output import err


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """`tell(done, of)` moves it."""
    columns = (
        TextColumn(title), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        task = bars.add_task(title, total=None)

        def tell(done: int, of: int) -> None:
            bars.update(task, completed=done, total=of)

        yield tell
