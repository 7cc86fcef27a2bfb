"""One execution of a batch service, with everything that was decided for it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tasks.domain.errors import RunError
from tasks.domain.package import Api, PackageConfig, Serving
from tasks.domain.paths import Address, OutputNames, parse_address
from tasks.domain.pool import Flavor
from tasks.domain.service import BatchService, is_package_address


class Run(BaseModel):
    """A validated run: what tasks hand on. Small, and without secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    task_id: str
    service: BatchService
    serving: Serving
    package: str | None = Field(default=None, description="address of the package's folder that holds config.json")
    model_version: str | None = None
    config: PackageConfig
    request_path: str
    rule: dict[str, Any] | None = Field(default=None, description="mapping rule; None if the request is a file")
    output: str = Field(description="output folder, its words replaced")
    flavor: Flavor
    warnings: tuple[str, ...] = ()
    deadline_at: float | None = Field(default=None, description="when this try stops early, in seconds since 1970")

    @property
    def api(self) -> Api:
        """The API that is asked."""
        return self.config.api(self.request_path)

    @property
    def model_name(self) -> str:
        """What the model is called: its name in the model store, else that of its package's folder."""
        model = self.service.model
        return parse_address(model).name if is_package_address(model) else model

    @property
    def names(self) -> OutputNames:
        """Names of everything that the run writes."""
        return OutputNames(self.task_id, self.service.result_folder)

    @property
    def output_address(self) -> Address:
        """The output folder."""
        return parse_address(self.output)

    @property
    def failed_of(self) -> Address | None:
        """The output manifest whose FAILED items are tried again, if that is what the run is for."""
        given = self.service.failed_of
        return None if given is None else parse_address(given)


STOPPED_BY_HAND = "somebody stopped it"
"""Why a run was stopped early, if it was not for a reason of its own."""
REPORTS = "reports"
PARTIAL_REPORTS = "partial"
"""Folders below the scratch folder."""


def deadline_passed(minutes: float | None) -> str:
    """Why a run was stopped early that had so many minutes."""
    minutes = minutes or 0
    return f"its deadline ({minutes:g} minute{'' if minutes == 1 else 's'}) had passed"


class ShardRef(BaseModel):
    """One shard, by reference: its items are in the plan."""

    model_config = ConfigDict(frozen=True)

    number: int
    first_item: int
    items: int
    bytes: int

    @property
    def plan_name(self) -> str:
        """The shard's part of the plan, below the scratch folder."""
        return f"plan/{self.number:05d}.parquet"

    @property
    def report_name(self) -> str:
        """The shard's report, below the scratch folder. It exists once the shard is done."""
        return f"{REPORTS}/{self.number:05d}.parquet"

    def partial_name(self, part: int) -> str:
        """A report of what is done so far, below the scratch folder."""
        return f"{PARTIAL_REPORTS}/{self.number:05d}-{part:04d}.parquet"


class ShardDone(BaseModel):
    """A shard whose report is written. Times are seconds since 1970 and those of this execution only."""

    model_config = ConfigDict(frozen=True)

    shard: ShardRef
    successful: int
    failed: int
    started_at: float
    ended_at: float
    preparing_since: float = Field(default=0, description="0 if no instance was needed")
    ready_at: float = 0
    deaths: int = Field(default=0, description="times that a model server of this process had died so far")
    stopped: str = Field(default="", description="why the run was stopped early")


class RunResult(BaseModel):
    """What came of a run: addresses and counts."""

    model_config = ConfigDict(frozen=True)

    task_id: str
    name: str
    manifest: str
    manifests: tuple[str, ...]
    summary: str
    items: int
    successful: int
    failed: int
    seconds: dict[str, float]
    top_causes: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    failure: str = Field(default="", description="why the run as a whole is Failed; empty if it is not")
    stopped: bool = Field(default=False, description="somebody stopped the run before its end")

    def checked(self) -> RunResult:
        """Itself. Raises RunFailed if the run as a whole is Failed, although everything is published."""
        if self.failure:
            raise RunFailed(self)
        return self


class RunFailed(RunError):
    """The run ended and accounts for every item, but is Failed as a whole. ``result`` says what came of it."""

    def __init__(self, result: RunResult) -> None:
        self.result = result
        super().__init__(f"{result.failure} Output manifest: {result.manifest}")

    def __reduce__(self) -> tuple[type[RunFailed], tuple[RunResult]]:
        return type(self), (self.result,)


class RunStopped(RunError):
    """Somebody stopped the run before anything was sent, so there is nothing to account for."""


class DeadlinePassed(RunError):
    """The run's time was over before anything was sent, so there is nothing to account for."""


class Plan(BaseModel):
    """What a run will read, by reference: the totals and the shards."""

    model_config = ConfigDict(frozen=True)

    items: int
    kept: int = Field(default=0, description="SUCCESSFUL lines of an earlier run's manifest that are merged in")
    bytes: int
    unknown_sizes: int = Field(description="items whose size no listing told; they are not in `bytes`")
    shards: tuple[ShardRef, ...]
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


PLAN_NAME = "plan.json"
"""Written last, so that its presence tells that the plan is complete; below the scratch folder."""
