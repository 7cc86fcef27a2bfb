"""Resuming runs that ended, or whose process vanished, before they published."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import AwaitingRetry, Crashed

from tasks.clients.processes.process_identity import is_there
from tasks.domain.errors import Problem, ServerError, SpecificationError
from tasks.domain.settings import read_settings
from tasks.domain.status import PROCESS_LABEL, report_of
from tasks.prefect_side.api import last_event

FIELD = "--resume"
_ENDED = (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
_NOT_YET = timedelta(hours=1)
_BEGUN = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


async def check_resumable(client: PrefectClient, flow_run: FlowRun) -> None:
    """Raises SpecificationError if a run is complete or active; a run is active while its process may be alive."""
    state = flow_run.state.type if flow_run.state else StateType.SCHEDULED
    report = report_of(flow_run.labels)
    manifest = "" if report.resumable else report.manifest
    if state == StateType.COMPLETED or (state in (StateType.FAILED, StateType.CANCELLED) and manifest):
        again = f"thresher retry-failed {flow_run.id}"
        if flow_run.deployment_id is None:  # not a run of a service
            again = f"thresher run SPEC --retry-failed {manifest or 'MANIFEST'}"
        expected = (
            f"has ended and published {manifest or 'its output manifest'}: there is nothing to resume; "
            f"`{again}` runs its failures again"
        )
        raise SpecificationError([Problem(FIELD, str(flow_run.id), expected)])
    if state in _ENDED:
        return
    of_service = flow_run.deployment_id is not None
    if of_service and state not in (StateType.RUNNING, StateType.CANCELLING):
        raise SpecificationError([Problem(FIELD, str(flow_run.id), "waits to be begun, and need not be resumed")])
    await _check_vanished(client, flow_run)


async def _check_vanished(client: PrefectClient, flow_run: FlowRun) -> None:
    """Raises SpecificationError unless the run's process is certainly gone, or was silent for long enough."""
    there = is_there(str(flow_run.labels.get(PROCESS_LABEL, "")))
    if there is False:
        return
    if there:
        expected = "is active, its process is alive on this machine: stop it first, or wait for its end"
        raise SpecificationError([Problem(FIELD, str(flow_run.id), expected)])
    silent = (datetime.now(UTC) - await _last_heard(client, flow_run)).total_seconds()
    bound = silence_seconds()
    if silent <= bound:
        expected = (
            f"is active: it was heard of {max(0.0, silent):.0f} s ago. If its process has vanished, it can be resumed "
            f"once it was not heard of for {bound} s"
        )
        raise SpecificationError([Problem(FIELD, str(flow_run.id), expected)])


def silence_seconds() -> int:
    """The time without a sign of life after which a run's process counts as vanished."""
    return read_settings().zombie_seconds


async def _last_heard(client: PrefectClient, flow_run: FlowRun) -> datetime:
    """When a run last gave a sign of life: a heartbeat, a progress update, or a change of state."""
    beat = await last_event(client, flow_run.id, "prefect.flow-run.heartbeat")
    signs = (beat and beat.occurred, flow_run.updated, flow_run.state and flow_run.state.timestamp)
    return max(when for when in signs if when)


def where_it_was(before: Mapping[str, Any], fields: Mapping[str, Any]) -> list[Problem]:
    """Problems of changed fields: the earlier results of a run are found by their old values."""
    return [
        Problem(name, fields.get(name), f"was {before[name]} when the run began: what it has done is found by that")
        for name in ("name", "output_path")
        if name in before and fields.get(name) != before[name]
    ]


async def begin_again(
    client: PrefectClient, flow_run: FlowRun, detail: str, fields: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> FlowRun:  # fmt: skip
    """Schedule a run that can be resumed again, under its id. Raises ServerError.

    New fields and job variables replace the old ones if given.
    """
    if fields is not None:
        await client.update_flow_run(flow_run.id, parameters={"service": dict(fields)})
    await client.update_flow_run_labels(flow_run.id, {PROCESS_LABEL: ""})
    if flow_run.state is not None and flow_run.state.type in _BEGUN:
        gone: State[Any] = Crashed(message="Its process had vanished when it was resumed.")
        await client.set_flow_run_state(flow_run.id, gone, force=True)
    if variables is not None:
        # They can be changed only while the run is scheduled, and it must not begin before they are.
        await _schedule(client, flow_run, AwaitingRetry(message=detail, scheduled_time=datetime.now(UTC) + _NOT_YET))
        await client.update_flow_run(flow_run.id, job_variables=dict(variables))
    await _schedule(client, flow_run, AwaitingRetry(message=detail))
    return await client.read_flow_run(flow_run.id)


async def _schedule(client: PrefectClient, flow_run: FlowRun, waiting: State[Any]) -> None:
    # Prefect schedules a run without a deployment only if forced: no worker would begin it, only the caller does.
    answer = await client.set_flow_run_state(flow_run.id, waiting, force=flow_run.deployment_id is None)
    if answer.status != SetStateStatus.ACCEPT:
        reason = getattr(answer.details, "reason", None) or answer.status.value
        raise ServerError(f"The Prefect server does not let run {flow_run.id} be begun again: {reason}")
