"""Runs whose process has vanished: Prefect learns of them by an automation only, which is created with the pools."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.states import Cancelled, Crashed

from deployments.server import prefect_server
from deployments.service import FLOW

NAME = "thresher: a run whose process has vanished is Crashed"
PENDING_NAME = "thresher: a run that was never begun is Crashed"
PENDING_MINUTES = 15
_ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
_GOES_ON = {f"prefect.flow-run.{state}" for state in ("Running", "Scheduled", "AwaitingRetry", "Cancelling")}


async def create_automations(client: PrefectClient, seconds: int) -> None:
    """Create or renew the automations; a run that was not heard of for ``seconds`` is Crashed.

    The idea is that of https://docs.prefect.io/v3/advanced/detect-zombie-flows, for runs of batch services only.
    """
    beat = "prefect.flow-run.heartbeat"
    said = f"The run was not heard of for {seconds} s: its process has vanished."
    never = f"The run was not begun within {PENDING_MINUTES} minutes: whoever was to start it has vanished."
    wanted = [
        _automation(NAME, {beat}, {beat} | _ENDS, timedelta(seconds=seconds), said),
        _automation(
            PENDING_NAME, {"prefect.flow-run.Pending"}, _GOES_ON | _ENDS, timedelta(minutes=PENDING_MINUTES), never
        ),
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
    """End, on the server, the runs of workers that have all ended, whose names begin with ``workers``.

    Nobody else is left who could. Raises ServerError.
    """
    async with prefect_server() as client:
        states = ["PENDING", "RUNNING", "CANCELLING"]
        body = {"flow_runs": {"state": {"type": {"any_": states}}}, "limit": 200}
        for flow_run in (await client._client.post("/flow_runs/filter", json=body)).json():
            if not str(flow_run["labels"].get("prefect.worker.name", "")).startswith(workers):
                continue
            said = "The local stack was stopped while it ran."
            stopping = flow_run["state_type"] == "CANCELLING"
            state: State[None] = Cancelled(message=said) if stopping else Crashed(message=said)
            await client.set_flow_run_state(UUID(flow_run["id"]), state, force=True)


def _automation(name: str, after: set[str], expect: set[str], within: timedelta, said: str) -> AutomationCore:
    return AutomationCore(
        name=name,
        description="Made by thresher pools apply.",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": FLOW}),
            for_each={"prefect.resource.id"},
            after=after,
            expect=expect,
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=said)],
    )
