"""When a service starts automatically."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import BaseModel, Field, field_validator, model_validator

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _WEEKDAYS),
)
"""Each with its lowest and highest number and the names allowed for numbers, from the lowest on."""
_PART = re.compile(r"(?:\*|([0-9a-z]+)(?:-([0-9a-z]+))?)(?:/([0-9]{1,4}))?")
_NTH_WEEKDAY = re.compile(r"([0-9a-z]+)#[1-5]")
_EXPECTED = "cron should have five fields: minute hour day month weekday, as in 0 2 * * 1-5"


class Schedule(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """When a service starts by itself: a cron line or an interval, not both."""

    cron: Annotated[str | None, Field(title="Cron", description="five cron fields, for example 0 2 * * *")] = None
    interval_minutes: Annotated[
        float | None, Field(title="Interval (minutes)", description="up to ten years", ge=0.01, le=5_256_000)
    ] = None
    timezone: Annotated[str, Field(title="Time zone", description="name as in Europe/Berlin")] = "UTC"

    @model_validator(mode="after")
    def _one_of_both(self) -> Schedule:
        if (self.cron is None) == (self.interval_minutes is None):
            raise ValueError("should have either cron or interval_minutes")
        return self

    @field_validator("cron")
    @classmethod
    def _cron_line(cls, value: str | None) -> str | None:
        if value is None:
            return None
        texts = value.split()
        if len(texts) != len(_FIELDS):
            raise ValueError(_EXPECTED)
        for text, (name, lowest, highest, names) in zip(texts, _FIELDS, strict=True):
            if not all(_is_part(part, lowest, highest, names) for part in text.lower().split(",")):
                raise ValueError(f"{_EXPECTED}; {text!r} is no {name} ({lowest}-{highest})")
        return " ".join(texts)

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in _timezones():
            raise ValueError("should be the name of a time zone, as in Europe/Berlin")
        return value


def _is_part(text: str, lowest: int, highest: int, names: tuple[str, ...]) -> bool:
    """Whether a text is ``*``, a number or name, or a range of them, each with or without a step."""

    def in_bounds(one: str) -> bool:
        return one in names or (one.isdecimal() and lowest <= int(one) <= highest)

    if names == _WEEKDAYS and (nth := _NTH_WEEKDAY.fullmatch(text)):
        return in_bounds(nth[1])
    found = _PART.fullmatch(text)
    return (
        found is not None
        and all(in_bounds(one) for one in found.groups()[:2] if one is not None)
        and (found[3] is None or int(found[3]) > 0)
    )


@cache
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())
