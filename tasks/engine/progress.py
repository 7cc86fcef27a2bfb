"""Progress of the runs of this process: written by the engine, read by the displays."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tasks.domain.run import RunResult
from tasks.domain.status import PHASES, Phase, RunReport
from tasks.domain.stop import Stop


@dataclass(slots=True)
class Progress:
    """Counts of one run, as far as this process knows them."""

    service: str = ""
    """Name of the service, once it is known."""
    model_version: str = ""
    """The version of the model in the store that the run has taken; empty for a package."""
    phase: Phase = "validating"
    items: int = 0
    done: int = 0
    failed: int = 0
    sick_instances: int = 0
    outage: str = ""
    """Why no model server accepts requests; empty while one does."""
    outage_since: float | None = None
    """Start of the outage, in seconds since 1970."""
    stopped: Stop | None = None
    """Set if the run has to stop: no further request is sent, and every item is accounted for as it is."""
    manifest: str = ""
    summary: str = ""
    resumable: bool = False
    """Whether the run can be resumed although it has published."""
    inferring_since: float | None = None
    inferred_at: float | None = None
    flow_began_at: float = 0.0
    """When the flow's code began to run in this try, in seconds since 1970."""
    result: RunResult | None = None
    """The result of the run, once everything is published."""
    start_seconds: float = 0.0
    """Seconds before ``flow_began_at``, since the command or, without one, this try of the flow run began."""

    def enter(self, phase: Phase) -> None:
        """Go on to a phase, never back to an earlier one: shards report in any order."""
        if PHASES.index(phase) > PHASES.index(self.phase):
            self.phase = phase
            if phase == "inferring":
                self.inferring_since = time.monotonic()
            elif phase == "publishing":
                self.inferred_at = time.monotonic()

    @property
    def report(self) -> RunReport:
        """The report on the run for other processes."""
        told: dict[str, Any] = {name: getattr(self, name) for name in RunReport.model_fields}
        return RunReport(**told | {"outage_since": self.outage_since or 0.0})

    @property
    def items_per_second(self) -> float:
        """Mean rate since inferring began, until now or its end."""
        if self.inferring_since is None:
            return 0.0
        return self.done / max(1e-3, (self.inferred_at or time.monotonic()) - self.inferring_since)

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the mean rate; None until an item is done."""
        return (self.items - self.done) / self.items_per_second if self.done else None


_runs: dict[str, Progress] = {}


def progress_of(task_id: str) -> Progress:
    """The progress of a run, created on first use."""
    return _runs.setdefault(task_id, Progress())


def runs() -> dict[str, Progress]:
    """The progress of every run of this process, by task id."""
    return dict(_runs)


def forget(task_id: str) -> None:
    """Drop the progress of a run that has ended."""
    _runs.pop(task_id, None)
