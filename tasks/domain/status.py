"""What a batch service is doing, in the contract's words, from Prefect's state and what its run says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

Status = Literal["Deploying", "Running", "Concerning", "Stopping", "Stopped", "Completed", "Failed"]
Phase = Literal["validating", "planning", "preparing", "inferring", "publishing", "done"]
PHASES: tuple[Phase, ...] = ("validating", "planning", "preparing", "inferring", "publishing", "done")

ACTIVE_STATES = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
"""Types of Prefect's states in which a run has not ended."""
_ENDED: Mapping[str, Status] = {
    "CANCELLING": "Stopping",
    "CANCELLED": "Stopped",
    "COMPLETED": "Completed",
    "FAILED": "Failed",
    "CRASHED": "Failed",
}
_PREFIX = "thresher."
PROCESS_LABEL = f"{_PREFIX}process"
"""Label that says which process does the run (tasks.clients.process_identity)."""


class RunReport(BaseModel):
    """What a run says of itself while it runs; kept as labels of its flow run, which whoever reads the run gets too."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    phase: Phase = "validating"
    items: int = 0
    done: int = 0
    failed: int = 0
    sick_instances: int = 0
    outage: str = ""
    """Why no model server takes requests, while none does."""
    outage_since: float = 0.0
    """Since when, in seconds since 1970; 0: they take requests."""
    manifest: str = ""
    summary: str = ""
    resumable: bool = False
    """Whether a run that has published can be resumed, since it was stopped early for what may pass."""

    @property
    def waits(self) -> str:
        """That the run waits for its model server, since when and why; empty if it does not."""
        if not self.outage_since:
            return ""
        since = datetime.fromtimestamp(self.outage_since, UTC)
        return f"waiting for the model server since {since:%H:%M:%S} UTC ({self.outage})"

    def labels(self) -> dict[str, bool | int | float | str]:
        """As labels: ``thresher.phase`` and so on."""
        return {f"{_PREFIX}{name}": value for name, value in self.model_dump().items()}


def report_of(labels: Mapping[str, Any]) -> RunReport:
    """What the labels of a flow run say; the beginning for a run that has said nothing yet, or nothing sensible.

    Anybody may change labels, and one run's must not hide all the others.
    """
    said = {name.removeprefix(_PREFIX): value for name, value in labels.items() if name.startswith(_PREFIX)}
    try:
        return RunReport.model_validate(said)
    except ValidationError:
        return RunReport()


def status_of(state_type: str | None, report: RunReport) -> Status:
    """The status of a service whose last run is in a state of this type (None: it has never run).

    Deploying lasts until an instance is healthy; an instance that died and is being started again, or was given up,
    makes a running service Concerning, and so does a model server that runs elsewhere and is away.
    """
    if state_type is None:
        return "Stopped"
    if state_type in _ENDED:
        return _ENDED[state_type]
    if state_type == "RUNNING" and report.phase == "preparing" and report.outage_since:
        return "Concerning"
    if state_type != "RUNNING" or report.phase in ("validating", "planning", "preparing"):
        return "Deploying"
    return "Concerning" if report.sick_instances and report.phase == "inferring" else "Running"
