"""Retry-After, as servers write it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tasks.clients.http_headers import retry_after


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("5", 5), (" 5 ", 5), ("1.5", 1.5), ("86400", 86400)])
def test_retry_after__is_a_number_of_seconds(value: str, seconds: float) -> None:
    assert retry_after(value) == seconds


def test_retry_after__is_a_date() -> None:
    later = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True))
    assert later is not None and 90 < later <= 100
    assert retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    assert retry_after("Thu, 01 Jan 1004 00:00:00 GMT") == 0
    assert retry_after("86400") == 86_400


def test_retry_after__of_the_far_future_is_taken_as_a_mistake() -> None:
    assert retry_after("Fri, 31 Dec 9999 23:59:59 GMT") is None
    assert retry_after("9" * 300) is None
    assert retry_after("86401") is None


@pytest.mark.parametrize(
    "value",
    [
        None, "", "soon", "nan", "inf", "-inf", "-5", "+5", "1_000", "1e3", "0x5", "٥", "5, 6", "9" * 10_000,
        "Fri, 31 Dec 99999999999999999999 23:59:59 GMT", "Fri, 31 Dec 10000 23:59:59 GMT",
        "Fri, 99 Dec 2030 99:99:99 GMT", "Fri, 31 Dec -5 23:59:59 GMT", "Thu, 01 Jan 0000 00:00:00 GMT",
        "Fri, 31 Dec 2030 23:59:59 +99999999999", "Mon, 01 Jan 0001 00:00:00 +2359", ",", "\x00", "GMT" * 1000,
    ],
)  # fmt: skip
def test_retry_after__that_says_nothing_usable_is_none(value: str | None) -> None:
    found = retry_after(value)
    assert found is None or found == 0.0
