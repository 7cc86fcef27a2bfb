"""Runs whose process has vanished: Prefect detects them only by automations, which are created with the pools."""

from __future__ import annotations

from datetime import timedelta

from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.states import Cancelled, Crashed

from deployments.set_up.deploy_service import deploy_service
from tasks.prefect_side.api import FLOW, runs_of_workers
from tasks.prefect_side.server import prefect_server

NAME = "thresher: a run whose process has vanished is Crashed"
STOPPING_NAME = "thresher: a run that is to stop and whose process has vanished is Cancelled"
STUCK_NAME = "thresher: a run that does not stop is Cancelled"
PENDING_NAME = "thresher: a run that was never begun is Crashed"
PENDING_MINUTES = 15
STUCK_MINUTES = 15
"""Far more than a run needs to stop: Prefect's worker kills its process after 30 s."""
_FLOWS = [FLOW, deploy_service.name]
_ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
_STOPPING = "prefect.flow-run.Cancelling"
_GOES_ON = {_STOPPING, *(f"prefect.flow-run.{state}" for state in ("Running", "Scheduled", "AwaitingRetry"))}


async def create_automations(client: PrefectClient, seconds: int) -> None:
    """Create or update the automations that set a run without a heartbeat for ``seconds`` to Crashed, or Cancelled.

    They follow https://docs.prefect.io/v3/advanced/detect-zombie-flows, for runs of Thresher's flows only. Prefect
    allows a Cancelling run to become only Cancelled: such runs have automations of their own.
    """
    beat = "prefect.flow-run.heartbeat"
    detail = f"The run was not heard of for {seconds} s: its process has vanished."
    stuck = f"The run was asked to stop and has not ended within {STUCK_MINUTES} minutes."
    never = f"The run was not begun within {PENDING_MINUTES} minutes: the process that was to start it has vanished."
    crashed, cancelled = StateType.CRASHED, StateType.CANCELLED
    silence, stuck_for = timedelta(seconds=seconds), timedelta(minutes=STUCK_MINUTES)
    pending, pending_for = "prefect.flow-run.Pending", timedelta(minutes=PENDING_MINUTES)
    wanted = [
        _automation(NAME, beat, {beat, _STOPPING} | _ENDS, silence, crashed, detail),
        _automation(STOPPING_NAME, _STOPPING, {beat} | _ENDS, silence, cancelled, detail),
        # Its process may also vanish after one more heartbeat.
        _automation(STUCK_NAME, _STOPPING, _ENDS, stuck_for, cancelled, stuck),
        _automation(PENDING_NAME, pending, _GOES_ON | _ENDS, pending_for, crashed, never),
    ]
    for automation in wanted:
        there = await client.read_automations_by_name(automation.name)
        for older in there[1:]:
            await client.delete_automation(older.id)
        if there:
            await client.update_automation(there[0].id, automation)
        else:
            await client.create_automation(automation)


async def end_orphans(workers: str) -> None:
    """End, on the server, the runs of the workers whose names begin with ``workers``, all of which have ended.

    No process is left that could. Raises ServerError.
    """
    async with prefect_server() as client:
        for flow_run in await runs_of_workers(client, workers, of_services=False):
            detail = "The local stack was stopped while it ran."
            stopping = flow_run.state_type == "CANCELLING"
            state: State[None] = Cancelled(message=detail) if stopping else Crashed(message=detail)
            await client.set_flow_run_state(flow_run.id, state, force=True)


def _automation(
    name: str, after: str, expect: set[str], within: timedelta, state: StateType, detail: str
) -> AutomationCore:
    """The run gets this state unless, within this time after one event, another one is received."""
    return AutomationCore(
        name=name,
        description="Made by thresher pools apply.",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": _FLOWS}),
            for_each={"prefect.resource.id"},
            after={after},
            expect=expect,
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(state=state, message=detail)],
    )
