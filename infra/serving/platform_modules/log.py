"""``import log``: the log of the original platform, here the instance's output."""

import logging

getLogger = logging.getLogger
get_logger = logging.getLogger
