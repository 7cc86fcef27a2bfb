"""``import log``: the log of the original platform, here the instance's output."""

from model_service.log import get_logger, getLogger

__all__ = ["getLogger", "get_logger"]
