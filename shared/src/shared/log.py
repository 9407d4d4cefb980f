"""Logs: one line an outcome, JSON or pretty, with sids and hashes, never names, phones, mails or bodies."""

import io
import logging
import sys
from contextlib import suppress
from typing import Literal

import structlog
from structlog.typing import EventDict, WrappedLogger

from shared import spans, trace

Level = Literal["verbose", "debug", "info", "warning", "error"]


class _Errors(io.TextIOBase):
    """Standard error; a full disk behind it costs the line, not the work of whoever logs."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def _traced(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """With the ids of the trace and the span of what is done just now, if anything is."""
    if known := trace.ids(spans.current()):
        event["trace_id"], event["span_id"] = known
    return event


def set_up(service: str, *, level: Level = "info", pretty: bool | None = None) -> None:
    """Write structlog's lines to standard error; pretty on a terminal, JSON elsewhere.  `verbose` is DEBUG."""
    number = logging.DEBUG if level == "verbose" else logging.getLevelNamesMapping()[level.upper()]
    pretty = sys.stderr.isatty() if pretty is None else pretty
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _traced,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(_Errors()),  # type: ignore[arg-type]  # it is only written to
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s", force=True)
