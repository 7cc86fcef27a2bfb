"""How a run ends before its last item; None in place of a stop means that the run goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from tasks.domain.result import NOT_PROCESSED, STOPPED_BEFORE, not_processed


class Stop(BaseModel, frozen=True, extra="forbid"):
    """Why a run sends no further request. Two are equal if they have the same reason, cause and prospects."""

    reason: Literal["by hand", "deadline", "threshold", "output gone", "outage", "no instance", "not started"]
    cause: str = Field(default="", description="ends 'the run was stopped early because'; if not started: sentences")
    resumable: bool = Field(
        default=False, description="the cause may pass, as an outage does: resumed, it does the rest"
    )

    @property
    def by_hand(self) -> bool:
        """Whether a user stopped the run, so that it is not Failed."""
        return self.reason == "by hand"

    @property
    def item_message(self) -> str:
        """The message of an item that is no longer sent."""
        if self.by_hand:
            return STOPPED_BEFORE
        if self.reason == "not started":
            return not_processed(self.cause)
        return f"{NOT_PROCESSED}the run was stopped early because {self.cause}."

    @property
    def failure(self) -> str:
        """Why the run as a whole is Failed; empty if it is not."""
        if self.by_hand or self.reason == "not started":
            return self.cause
        return f"The run was stopped early because {self.cause}."


BY_HAND = Stop(reason="by hand")


def deadline_passed(minutes: float | None) -> Stop:
    """The stop of a run with a deadline of ``minutes``, once that has passed."""
    minutes = minutes or 0
    return Stop(reason="deadline", cause=f"its deadline ({minutes:g} minute{'' if minutes == 1 else 's'}) had passed")


def threshold_passed(threshold: float | None, failed: int, items: int) -> Stop | None:
    """The stop of a run after ``failed`` of its ``items`` have failed; None up to the threshold.

    A ``threshold`` below 1 is a share of all items, otherwise a number of items.
    """
    if threshold is None or failed <= (threshold * items if threshold < 1 else threshold):
        return None
    return Stop(reason="threshold", cause=f"{failed} items had failed (error_threshold {threshold:g})")
