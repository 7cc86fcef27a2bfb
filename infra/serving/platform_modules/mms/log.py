"""``from mms.log import get_logger``: the instance's output."""

import logging

getLogger = logging.getLogger


def get_logger(name: str = "mms") -> logging.Logger:
    """The logger with this name."""
    return logging.getLogger(name)
