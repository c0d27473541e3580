"""What deployments say about themselves on standard error: lines for people, or one JSON object a line for machines.

Fields beside the message are those named here and nothing else, so that nobody logs an object by mistake that holds
more than it shows. Text that came from another machine cannot begin a line of its own in either form.
"""

from __future__ import annotations

import contextlib
import datetime
import enum
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any, TextIO

FIELDS = ("round", "phase", "member", "place", "attempt", "seconds", "members")
"""Extra fields of a line: numbers and short texts."""
_LONGEST_FIELD = 200
_LONGEST_MESSAGE = 4000
_LOGGERS = ("codream_secure", "py.warnings")


class LogFormat(enum.StrEnum):
    """How lines look."""

    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """``{"time": ..., "level": ..., "logger": ..., "message": ..., ...}``, in UTC, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage()[:_LONGEST_MESSAGE],
        }
        line |= {name: _plain(record.__dict__[name]) for name in FIELDS if record.__dict__.get(name) is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """The time and the message, in one line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@contextlib.contextmanager
def logging_to(form: LogFormat, *, verbose: bool = False, stream: TextIO | None = None) -> Iterator[None]:
    """Send this package's lines, and Python's warnings, to a stream; afterwards to where they went before.

    The root logger is left alone: libraries configure and use it as they please.

    Args:
        form: how lines look.
        verbose: also say who connects and which rounds begin.
        stream: where to; None is standard error.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else TextFormatter())
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    logging.captureWarnings(form is LogFormat.JSON)
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def _plain(value: Any) -> Any:
    """A field's value; of anything but a number or a text only the type."""
    if isinstance(value, bool | int | float):
        return value
    return value[:_LONGEST_FIELD] if isinstance(value, str) else type(value).__name__
