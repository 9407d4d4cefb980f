"""Logs: one line an outcome, JSON or pretty, with sids and hashes, never names, phones, mails or bodies."""

import io
import logging
import sys
from contextlib import suppress
from typing import Literal

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

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
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _traced,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[Processor] = (
        # Its own tracebacks show what each variable held.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*common, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(_Errors()),  # type: ignore[arg-type]  # it is only written to
    )
    structlog.contextvars.bind_contextvars(service=service)
    others = logging.StreamHandler(_Errors())  # what libraries say is a line like ours
    others.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=common, processors=[ProcessorFormatter.remove_processors_meta, *rendered]
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[others], force=True)
