"""A process of the mapper's own, beside it: what each has to do to end with it."""

import contextlib
import os
import sys
import threading


def end_with_the_mapper() -> None:
    """From here on.  Its end of our standard input is closed when it ends, however it does."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            os.read(sys.stdin.fileno(), 1)
        os._exit(os.EX_UNAVAILABLE)

    threading.Thread(target=wait, daemon=True).start()
