"""What Prefect's logs say of expected failures: the message, without a stack trace."""

from __future__ import annotations

import logging

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
