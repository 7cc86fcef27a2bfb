"""A batch service as a Prefect deployment: conversion to Prefect's objects and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule, FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from pydantic import BaseModel

from tasks.domain.paths import redact
from tasks.domain.schedule import Schedule
from tasks.domain.service import BatchService
from tasks.domain.status import Status, report_of, status_of
from tasks.prefect_side.server import ui_url

ENTRYPOINT = "flows.batch_service.batch_service"
"""As a module, not as a path: a path would put flows/ first on the import path."""
TAG = "thresher"


class Execution(BaseModel, frozen=True, protected_namespaces=()):
    """One run of a service, as shown to the user."""

    id: str
    status: Status
    message: str = ""
    created: str | None = None
    started: str | None = None
    ended: str | None = None
    items: int = 0
    done: int = 0
    failed: int = 0
    manifest: str = ""
    summary: str = ""
    page: str = ""
    service: str = ""
    model_version: str = ""
    """The version of the model in the store that it has taken."""

    @classmethod
    def of(cls, flow_run: FlowRun) -> Execution:
        """The run, from its flow run."""
        report = report_of(flow_run.labels)
        times = flow_run.model_dump(mode="json", include={"created", "start_time", "end_time"})
        return cls(
            id=str(flow_run.id),
            status=status_of(flow_run.state_type, report),
            message=(flow_run.state and flow_run.state.message) or "",
            created=times["created"],
            started=times["start_time"],
            ended=times["end_time"],
            items=report.items,
            done=report.done,
            failed=report.failed,
            manifest=report.manifest,
            summary=report.summary,
            page=ui_url(f"runs/flow-run/{flow_run.id}"),
            service=str(specification_of(flow_run).get("name", "")),
            model_version=report.model_version,
        )

    @property
    def exit_code(self) -> int:
        """0 if every item succeeded, else 1."""
        return 0 if self.status == "Completed" and not self.failed else 1


class Service(BaseModel, frozen=True, protected_namespaces=()):
    """A batch service, as shown to the user."""

    name: str
    status: Status
    id: str
    input_path: str
    output_path: str
    description: str
    model: str
    model_version: str | None
    resource_pool: str
    flavor: str | None
    instances: int
    schedule: str
    page: str
    last_run: Execution | None

    @classmethod
    def of(cls, deployment: DeploymentResponse, flow_run: FlowRun | None) -> Service:
        """The service with its last run, from its deployment and flow run."""
        fields = specification_of(deployment)
        last = None if flow_run is None else Execution.of(flow_run)
        return cls(
            name=deployment.name,
            status=last.status if last else status_of(None, report_of({})),
            id=str(deployment.id),
            input_path=str(fields.get("input_path", "")),
            output_path=str(fields.get("output_path", "")),
            description=deployment.description or "",
            model=redact(str(fields.get("model", ""))),
            model_version=fields.get("model_version"),
            resource_pool=deployment.work_pool_name or "",
            flavor=fields.get("flavor"),
            instances=int(fields.get("instances") or 1),
            schedule=_schedule_text(deployment.schedules),
            page=ui_url(f"deployments/deployment/{deployment.id}"),
            last_run=last,
        )


def specification_of(held: DeploymentResponse | FlowRun) -> dict[str, Any]:
    """The fields of the specification in a deployment or flow run."""
    return dict(held.parameters.get("service") or {})


def parameters_of(service: BatchService) -> dict[str, Any]:
    """The flow's parameters: the whole specification, without nulls, as the next run's form shows it (see ``form``)."""
    return {"service": service.model_dump(mode="json", by_alias=True, exclude_none=True)}


def queue_of(priority: int) -> str:
    """The work queue of a pool in which runs of this priority wait."""
    return f"priority-{priority}"


def schedules_of(schedule: Schedule | None) -> list[DeploymentScheduleCreate]:
    """A service's schedule in Prefect's form."""
    if schedule is None:
        return []
    when: CronSchedule | IntervalSchedule
    if schedule.cron is not None:
        when = CronSchedule(cron=" ".join(schedule.cron.split()), timezone=schedule.timezone)
    else:
        assert schedule.interval_minutes is not None
        when = IntervalSchedule(interval=timedelta(minutes=schedule.interval_minutes), timezone=schedule.timezone)
    return [DeploymentScheduleCreate(schedule=when, active=True)]


def _schedule_text(schedules: Sequence[DeploymentSchedule]) -> str:
    texts = []
    for one in schedules:
        when = one.schedule
        if isinstance(when, IntervalSchedule):
            text = f"every {when.interval.total_seconds() / 60:g} min"
        else:
            text = str(getattr(when, "cron", None) or getattr(when, "rrule", ""))
        texts.append(text if one.active else f"{text} (paused)")
    return ", ".join(texts)
