"""When a service starts by itself."""

from __future__ import annotations

import re
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_CRON_FIELD = r"(?:\*|[0-9A-Za-z#]+(?:-[0-9A-Za-z]+)?)(?:/[0-9]+)?"
_CRON = re.compile(rf"{_CRON_FIELD}(?:,{_CRON_FIELD})*(?: {_CRON_FIELD}(?:,{_CRON_FIELD})*){{4}}")


class Schedule(BaseModel):
    """When a service starts by itself: a cron line or an interval, not both."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cron: Annotated[str | None, Field(title="Cron", description="five cron fields, for example 0 2 * * *")] = None
    interval_minutes: Annotated[float | None, Field(title="Interval (minutes)", gt=0)] = None
    timezone: Annotated[str, Field(title="Time zone", description="name as in Europe/Berlin")] = "UTC"

    @model_validator(mode="after")
    def _one_of_both(self) -> Schedule:
        if (self.cron is None) == (self.interval_minutes is None):
            raise ValueError("should have either cron or interval_minutes")
        if self.cron is not None and _CRON.fullmatch(" ".join(self.cron.split())) is None:
            raise ValueError("cron should have five fields: minute hour day month weekday, as in 0 2 * * 1-5")
        return self

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("should be the name of a time zone, as in Europe/Berlin") from None
        return value
