"""HTTP headers that more than one client reads."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"[0-9]{1,300}(?:\.[0-9]{1,300})?")
_DATE = 64
"""Maximum length of a date."""
LONGEST_SECONDS = 86_400.0
"""No model server is deliberately away for longer: a larger value is taken as a mistake."""


def retry_after(value: str | None) -> float | None:
    """Seconds until the time in a Retry-After header (a number of seconds or an HTTP date); None if it is unusable."""
    seconds = None if value is None else _seconds(value.strip(" \t"))
    return None if seconds is None or seconds > LONGEST_SECONDS else seconds


def _seconds(value: str) -> float | None:
    if _SECONDS.fullmatch(value):
        return float(value)
    if len(value) > _DATE:
        return None
    try:
        when = parsedate_to_datetime(value)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError, TypeError, IndexError, AttributeError):  # raised by the library's lenient parser
        return None
