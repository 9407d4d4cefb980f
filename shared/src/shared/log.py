"""Logs: one line an outcome, JSON or pretty, with sids and hashes, never names, phones, mails or bodies."""

import logging
import sys
from typing import Literal

import structlog

Level = Literal["verbose", "debug", "info", "warning", "error"]


def set_up(service: str, *, level: Level = "info", pretty: bool | None = None) -> None:
    """Write structlog's lines to standard error; pretty on a terminal, JSON elsewhere.  `verbose` is DEBUG."""
    number = logging.DEBUG if level == "verbose" else logging.getLevelNamesMapping()[level.upper()]
    pretty = sys.stderr.isatty() if pretty is None else pretty
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s", force=True)
