"""Exit codes, and errors as lines of a log where that is asked for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from codream_secure.errors import CodreamError, DataError, NumericalError
from protocols import ProtocolError

EXIT_FAULT, EXIT_USAGE, EXIT_DATA, EXIT_NUMERICAL, EXIT_INTERRUPTED = 1, 2, 3, 4, 130
_LOG = logging.getLogger(__name__)


class SaidExit(SystemExit):
    """An end whose reason has been said already."""


def exit_code(error: Exception) -> int:
    """Of a deliberate error."""
    if isinstance(error, DataError):
        return EXIT_DATA
    if isinstance(error, NumericalError):
        return EXIT_NUMERICAL
    return EXIT_USAGE


@contextlib.contextmanager
def logged_end() -> Iterator[None]:
    """Whatever ends a command goes to the log, in its form, in place of a message or traceback of another form.

    Raises:
        SaidExit: in place of the error.
    """
    try:
        yield
    except (CodreamError, ProtocolError) as error:
        _LOG.error("%s", error)
        raise SaidExit(exit_code(error)) from None
    except KeyboardInterrupt:
        _LOG.error("interrupted; the same command goes on from the same folder")
        raise SaidExit(EXIT_INTERRUPTED) from None
    except Exception:
        _LOG.critical("an unexpected fault", exc_info=True)
        raise SaidExit(EXIT_FAULT) from None
