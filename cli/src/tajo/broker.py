"""A connection to the broker for one command: tried for some seconds, closed in the end."""

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import nats
import nats.errors
from nats.aio.client import Client
from nats.protocol.parser import AUTHORIZATION_VIOLATION, PERMISSIONS_ERR

from shared.login import CERTIFICATES, DENIED, Login, login_as

# 0.2 s apart; whoever asks is a person, and waits 11 s at most for what answers nothing.
TRIES, TRY_S = 5, 2.0

CANCEL_AGAIN_S = 5.0

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Until it is done.  SIGINT and SIGTERM end it: what it does then is let be done, and KeyboardInterrupt raised.

    What goes on all the same is cancelled again: nats-py swallows a cancellation now and then (shared/service.py), also
    while it closes; so who was asked to stop stops, even where the work has ended: a command may have more of it.
    """
    asked = False

    async def stoppable() -> T:
        task, loop = asyncio.create_task(work), asyncio.get_running_loop()

        def stop() -> None:
            if not task.done():
                task.cancel()
                loop.call_later(CANCEL_AGAIN_S, stop)

        def once() -> None:  # whoever is impatient must not interrupt the stopping
            nonlocal asked
            asked = True
            if not task.cancelling():
                stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, once)
        return await task

    try:
        result = asyncio.run(stoppable())
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error
    if asked:
        raise KeyboardInterrupt
    return result


class DeniedError(nats.errors.Error):
    """The broker is there and does not let us: why, and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


@asynccontextmanager
async def connected(url: str, login: Login | None = None) -> AsyncIterator[Client]:
    """A connection as the user `tajo`, unless `login` says another; without it, as the environment says.

    Raises nats' errors, DeniedError among them, SettingsError and OSError.
    """
    login = login or login_as("tajo", url, os.environ)
    denied: DeniedError | None = None

    async def on_error(error: Exception) -> None:  # nats-py's own would print a traceback for each try
        nonlocal denied
        denied = _denied(error, login) or denied  # any try's: a connection that is reset loses what was said

    try:
        connection = await nats.connect(
            login.servers(url),
            **login.options(),
            connect_timeout=TRY_S,
            max_reconnect_attempts=TRIES,
            reconnect_time_wait=0.2,  # seconds
            error_cb=on_error,
        )
        try:
            yield connection
        finally:
            await connection.close()
    except nats.errors.Error as error:
        if denied:
            raise denied from error
        raise


def _denied(error: Exception, login: Login) -> DeniedError | None:
    why = str(error)
    if isinstance(error, ssl.SSLError):
        return DeniedError(f"no TLS with the broker: {why}", CERTIFICATES)
    if AUTHORIZATION_VIOLATION in why.lower():
        return DeniedError("the broker refuses us", login.remedy)
    if PERMISSIONS_ERR in why:
        return DeniedError(why.removeprefix("nats: "), DENIED)
    return None
