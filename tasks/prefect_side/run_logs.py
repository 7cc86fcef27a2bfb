"""Prefect's logs in this process: failures in one line, without a traceback, and no harm from a closed output.

The traceback of an unexpected error is logged if Prefect's log level is DEBUG.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.logging.handlers import PrefectConsoleHandler

from tasks.clients.surroundings.surroundings import explained
from tasks.domain.errors import ThresherError
from tasks.domain.masking import masked
from tasks.domain.plain_text import plain_block
from tasks.domain.unexpected import is_unexpected
from tasks.prefect_side.internals import RUN_LOGGERS, never_exit

_LEFT_TO_PREFECT = ("prefect", "httpx")


class _Plain(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        ours = error if isinstance(error, ThresherError) else None
        if error is not None and is_unexpected(error) and not logging.getLogger("prefect").isEnabledFor(logging.DEBUG):
            ours = explained(error)
        if ours is not None:
            record.exc_info = None
            record.exc_text = None
            prefix = f"{record.getMessage()}: " if record.name.startswith("tasks.") else ""  # names the item
            record.msg, record.args = "%s%s", (prefix, ours)
        with suppress(TypeError, ValueError):  # logging itself reports a record that cannot be formatted
            record.msg, record.args = plain_block(masked(record.getMessage())), ()
        return True


def plain_errors() -> None:
    """Log Thresher's own errors in this process without a traceback, and text from outside as plain text."""
    for name in RUN_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(one, _Plain) for one in logger.filters):
            logger.addFilter(_Plain())
    for handler in _handlers():
        if not any(isinstance(one, _Plain) for one in handler.filters):
            handler.addFilter(_Plain())


@contextmanager
def in_our_words() -> Iterator[None]:
    """Turn an unexpected error into one of Thresher's, in one line; Prefect's own signals and errors pass through."""
    try:
        yield
    except BaseException as error:
        if is_unexpected(error) and type(error).__module__.partition(".")[0] not in _LEFT_TO_PREFECT:
            raise explained(error) from error
        raise


def _handlers() -> set[logging.Handler]:
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    return {one for logger in loggers for one in logger.handlers}


def outlive_reader() -> None:
    """Go on when the reader of this process's output has gone, such as a worker that was killed.

    Otherwise the run would be aborted, or wait forever for a thread that is gone.
    """
    for handler in _handlers():
        if isinstance(handler, PrefectConsoleHandler):
            never_exit(handler.console)
