"""Prefect's logs in this process: expected failures without a stack trace, and a reader that goes away does no harm."""

from __future__ import annotations

import logging

from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console

from tasks.domain.errors import ThresherError


class _Plain(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, ThresherError):
            record.exc_info = None
            record.exc_text = None
            record.msg, record.args = "%s", (error,)
        return True


def plain_errors() -> None:
    """Make Prefect's loggers of flows and tasks in this process show Thresher's own errors without their stack."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(one, _Plain) for one in logger.filters):
            logger.addFilter(_Plain())


def outlive_reader() -> None:
    """Go on when whoever reads this process's output has gone, such as a worker that was killed.

    Rich raises SystemExit then, in whichever thread has something to say: the run would be aborted, or wait for ever
    for a thread that is gone.
    """
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    for handler in {one for logger in loggers for one in logger.handlers}:
        if isinstance(handler, PrefectConsoleHandler):
            handler.console.__class__ = _Unread


class _Unread(Console):
    def on_broken_pipe(self) -> None:
        self.quiet = True
