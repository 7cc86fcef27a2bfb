"""The status of a batch service, in the contract's words, from Prefect's state and the run's own progress."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

Status = Literal["Deploying", "Running", "Concerning", "Stopping", "Stopped", "Completed", "Failed"]
Phase = Literal["validating", "planning", "preparing", "inferring", "publishing", "done"]
PHASES: tuple[Phase, ...] = ("validating", "planning", "preparing", "inferring", "publishing", "done")

ACTIVE_STATES = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
"""Prefect's state types of a run that has not ended."""
_ENDED: Mapping[str, Status] = {
    "CANCELLING": "Stopping",
    "CANCELLED": "Stopped",
    "COMPLETED": "Completed",
    "FAILED": "Failed",
    "CRASHED": "Failed",
}
_PREFIX = "thresher."
PROCESS_LABEL = f"{_PREFIX}process"
"""Label that identifies the process of the run (tasks.clients.processes.process_identity)."""


class RunReport(BaseModel, frozen=True, extra="ignore", protected_namespaces=()):
    """The progress of a run, kept as labels of its flow run, so that it is read together with the flow run."""

    phase: Phase = "validating"
    items: int = 0
    done: int = 0
    failed: int = 0
    sick_instances: int = 0
    outage: str = ""
    """Why no model server takes requests, while none does."""
    outage_since: float = 0.0
    """Start of this, in seconds since 1970; 0 while they take requests."""
    manifest: str = ""
    summary: str = ""
    model_version: str = ""
    """The version of the model in the store that the run has taken."""
    resumable: bool = False
    """Whether a run that has published can be resumed, because the reason for its early stop may pass."""

    @property
    def waits(self) -> str:
        """A text with start and reason if the run waits for its model server; otherwise empty."""
        if not self.outage_since:
            return ""
        since = datetime.fromtimestamp(self.outage_since, UTC)
        return f"waiting for the model server since {since:%H:%M:%S} UTC ({self.outage})"

    def labels(self) -> dict[str, bool | int | float | str]:
        """As labels: ``thresher.phase`` and so on."""
        return {f"{_PREFIX}{name}": value for name, value in self.model_dump().items()}


def report_of(labels: Mapping[str, Any]) -> RunReport:
    """The progress in the labels of a flow run; the initial one if there are no labels yet, or invalid ones.

    Any user may change labels, and those of one run must not hide all other runs.
    """
    detail = {name.removeprefix(_PREFIX): value for name, value in labels.items() if name.startswith(_PREFIX)}
    try:
        return RunReport.model_validate(detail)
    except ValidationError:
        return RunReport()


def status_of(state_type: str | None, report: RunReport) -> Status:
    """The status of a service whose last run is in a state of this type (None: it has never run).

    Deploying lasts until an instance is healthy. A running service is Concerning if an instance that died is being
    restarted, or was given up, and also if a model server that runs elsewhere is away.
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
