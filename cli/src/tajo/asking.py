"""A command that asks the log: with a connection for its work, and every way it can end."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import typer
from nats.aio.client import Client

from shared.publish import NotPublishedError
from tajo.broker import connected, run
from tajo.log_reading import SubjectsError
from tajo.output import INTERRUPTED, UNAVAILABLE, err, failure, reaching

T = TypeVar("T")


def asking(
    nats_url: str,
    work: Callable[[Client], Coroutine[Any, Any, T]],
    *,
    as_json: bool,
    so_far: Callable[[], str] | None = None,
) -> T:
    """Do it with a connection.  Who changes something says `so_far` what was done when it is cut off."""

    async def at_work() -> T:
        async with connected(nats_url) as broker:
            return await work(broker)

    try:
        with reaching(nats_url, as_json=as_json):
            try:
                return run(at_work())
            except NotPublishedError as error:
                if so_far is None:
                    raise
                raise failure(
                    f"the broker took no more ({error}): {so_far()}", "the same command goes on from there",
                    code=UNAVAILABLE, as_json=as_json,
                ) from error  # fmt: skip
    except SubjectsError as error:
        raise typer.BadParameter(f"the broker does not take these --subjects: {error}") from error
    except KeyboardInterrupt as error:
        err.print(
            f"Stopped: {so_far()}.  The same command goes on from there." if so_far else "Stopped.",
            highlight=False,
        )
        raise typer.Exit(INTERRUPTED) from error
