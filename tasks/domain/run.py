"""One execution of a batch service, with all decisions made for it."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import BaseModel, Field

from tasks.domain.errors import RunError
from tasks.domain.package import Api, PackageConfig, Serving
from tasks.domain.paths import Address, OutputNames, parse_address
from tasks.domain.pool import Flavor, Pool
from tasks.domain.service import BatchService, is_package_address
from tasks.domain.stop import Stop


class Run(BaseModel, frozen=True, extra="forbid", protected_namespaces=()):
    """A validated run, as tasks pass it on: small, and without secrets."""

    task_id: str
    service: BatchService
    serving: Serving
    package: str | None = Field(default=None, description="address of the package's folder that holds config.json")
    bare_model: str | None = Field(default=None, description="address of the model that the package was made of")
    model_version: str | None = None
    model_content: str = Field(default="", description="hash of the version's files when it was registered")
    config: PackageConfig
    request_path: str
    rule: dict[str, Any] | None = Field(default=None, description="mapping rule; None if the request is a file")
    output: str = Field(description="output folder, its words replaced")
    flavor: Flavor
    pool: Pool | None = Field(default=None, description="the resource pool; None for plain processes of this machine")
    attempt: str = Field(
        default_factory=lambda: uuid.uuid4().hex[:8], description="tells the tries of a run apart that is tried again"
    )
    warnings: tuple[str, ...] = ()
    start_seconds: float = Field(default=0, description="of this try, before the flow's first line")
    validate_seconds: float = Field(default=0, description="of this try, from the flow's first line on")
    deadline_at: float | None = Field(default=None, description="when this try stops early, see tasks.clients.clock")

    @property
    def is_distributed(self) -> bool:
        """Whether each instance has its own process or pod: distributed computing mode (several instances), or pods."""
        pods = self.pool is not None and self.pool.makes_pods
        return (self.service.instances > 1 or pods) and self.serving != "running"

    @property
    def instances(self) -> int:
        """Number of instances: one per address if the model servers already run."""
        return len(self.service.model.split()) if self.serving == "running" else self.service.instances

    @property
    def api(self) -> Api:
        """The API that requests are sent to."""
        return self.config.api(self.request_path)

    @property
    def model_name(self) -> str:
        """The model's name: that in the model store, else that of its package folder."""
        model = self.service.model
        return parse_address(model).name if is_package_address(model) else model

    @property
    def names(self) -> OutputNames:
        """Names of all files and folders that the run writes."""
        return OutputNames(self.task_id, self.service.result_folder)

    @property
    def output_address(self) -> Address:
        """The output folder."""
        return parse_address(self.output)

    @property
    def failed_of(self) -> Address | None:
        """The output manifest whose FAILED items are processed again; None for a run over its whole input path."""
        given = self.service.failed_of
        return None if given is None else parse_address(given)


class ShardRef(BaseModel, frozen=True):
    """One shard, or a part of one, by reference: its items are in the plan.

    While shards are processed, idle instances take over parts of them. ``number`` is that of the planned shard;
    ``first_item`` and ``items`` are the range of item numbers.
    """

    number: int
    first_item: int
    items: int
    bytes: int
    digest: str = Field(default="", description="of the planned shard's part of the plan, see tasks.domain.seal")

    @property
    def end(self) -> int:
        """One past its last item."""
        return self.first_item + self.items

    @property
    def key(self) -> str:
        """Identifies it among all shards and parts of shards of one try of a run; unchanged by a cut."""
        return f"{self.number:05d}-{self.first_item}"

    @property
    def folder(self) -> str:
        """Folder of all files of the planned shard, below the scratch folder."""
        return f"{SHARDS}/{self.number:05d}"

    @property
    def plan_name(self) -> str:
        """The planned shard's part of the plan, below the scratch folder."""
        return f"{self.folder}/{PLANNED}"

    def owner(self, task_id: str) -> str:
        """The owner in the seals of its part of the plan and of its reports."""
        return f"{task_id}/{self.folder}"

    def report_name(self, attempt: str) -> str:
        """Name of its report in one try of the run, below the scratch folder; passed on only once it is done."""
        return f"{self.folder}/report-{self.first_item}-{attempt}.parquet"

    def until(self, end: int) -> ShardRef:
        """The part before item ``end``. Its bytes are in proportion, since item sizes are not known here."""
        items = end - self.first_item
        return self.model_copy(update={"items": items, "bytes": self.bytes * items // max(1, self.items)})

    def from_(self, first: int) -> ShardRef:
        """The part from item ``first`` on. Its bytes are also in proportion."""
        items = self.end - first
        size = self.bytes * items // max(1, self.items)
        return self.model_copy(update={"first_item": first, "items": items, "bytes": size})


SHARDS = "shards"
"""Folder below the scratch folder, with one folder per planned shard."""
PLANNED = "plan.parquet"


class ShardDone(BaseModel, frozen=True):
    """A shard (or a part of one) whose report is written. Times are seconds since 1970, of this try only."""

    shard: ShardRef
    report: str = Field(description="its report, below the scratch folder")
    digest: str = Field(default="", description="that of the report as it was written; empty: not known")
    successful: int
    failed: int
    started_at: float
    ended_at: float
    instance: int = Field(default=0, description="number of the instance; 0 if one process has them all")
    preparing_since: float = Field(default=0, description="0 if no instance was needed")
    ready_at: float = 0
    deaths: int = Field(default=0, description="times that a model server of this process had died so far")
    stopped: Stop | None = Field(default=None, description="the run's early end, as far as this process knows it")


class RunResult(BaseModel, frozen=True):
    """The outcome of a run: addresses and counts."""

    task_id: str
    name: str
    manifest: str
    manifests: tuple[str, ...]
    summary: str
    items: int
    successful: int
    failed: int
    not_processed: int = Field(default=0, description="of those that failed: items that were never sent")
    seconds: dict[str, float]
    top_causes: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    failure: str = Field(default="", description="why the run as a whole is Failed; empty if it is not")
    stopped: bool = Field(default=False, description="a user stopped the run before its end")
    resumable: bool = Field(default=False, description="stopped early for what may pass: resumed, it does the rest")

    @property
    def counts(self) -> str:
        """Item counts by outcome, as text."""
        detail = f"{self.successful:,} of {self.items:,} items SUCCESSFUL, {self.failed:,} FAILED"
        return detail + (f" ({self.not_processed:,} of them not processed)" if self.not_processed else "")

    def after_failure(self, text: str) -> str:
        """``text`` after the reason why the run is Failed: on its own line if the reason has several."""
        return f"{self.failure}{chr(10) if chr(10) in self.failure else ' '}{text}"

    def checked(self) -> RunResult:
        """This result. Raises RunFailed if the run as a whole is Failed, even though everything is published."""
        if self.failure:
            raise RunFailed(self)
        return self


class RunFailed(RunError):
    """The run ended and accounts for every item, but is Failed as a whole. ``result`` is its outcome."""

    def __init__(self, result: RunResult) -> None:
        self.result = result
        super().__init__(result.after_failure(f"Output manifest: {result.manifest}"))

    def __reduce__(self) -> tuple[type[RunFailed], tuple[RunResult]]:
        return type(self), (self.result,)


class RunStopped(RunError):
    """A user stopped the run before anything was sent, so there is nothing to account for."""


class DeadlinePassed(RunError):
    """The run's deadline passed before anything was sent, so there is nothing to account for."""


class Plan(BaseModel, frozen=True):
    """The input of a run, by reference: the totals and the shards."""

    items: int
    kept: int = Field(default=0, description="SUCCESSFUL lines of an earlier run's manifest that are merged in")
    bytes: int
    unknown_sizes: int = Field(description="items whose size no listing shows; they are not in `bytes`")
    shards: tuple[ShardRef, ...]
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    fingerprint: dict[str, str] = Field(default_factory=dict, description="see tasks.domain.fingerprint")
    published: RunResult | None = Field(default=None, description="of a run that is tried again after its end")


PLAN_NAME = "plan.json"
"""File below the scratch folder. Written last, so its presence means that the plan is complete."""
