"""Stopping the runs of a local stack: each ends with a complete manifest, before its worker ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from deployments.terminal.output import say
from tasks.domain.errors import ServerError
from tasks.prefect_side.api import runs_of_workers
from tasks.prefect_side.server import prefect_server

STOP_RUNS_SECONDS = 20.0
"""Runs that have not ended within this time end with their workers."""
_POLL_SECONDS = 0.5


@asynccontextmanager
async def stopped_runs(workers: str, pools: Mapping[str, int | None]) -> AsyncIterator[None]:
    """Stop the runs of the workers whose names begin with ``workers``, then let the block end these workers.

    ``pools`` are their pools with their concurrency limits. The limits are 0 until the block has ended, or waiting runs
    would begin in place of those that end. Waiting runs stay Scheduled, so that the next stack begins them. A Pending
    run already belongs to a worker and no other would take it, so it is stopped once it has begun.
    """
    with suppress(ServerError):
        async with prefect_server() as client:
            await _allow(client, dict.fromkeys(pools, 0))
            await _stop(client, workers)
    try:
        yield
    finally:
        with suppress(ServerError):
            async with prefect_server() as client:
                await _allow(client, pools)


async def _allow(client: PrefectClient, pools: Mapping[str, int | None]) -> None:
    for name, runs in pools.items():
        with suppress(ObjectNotFound):
            await client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=runs))


async def _stop(client: PrefectClient, workers: str) -> None:
    deadline = asyncio.get_running_loop().time() + STOP_RUNS_SECONDS
    shown = 0
    while active := await runs_of_workers(client, workers, of_services=True):
        if len(active) > shown:
            shown = len(active)
            what = "1 run is" if shown == 1 else f"{shown} runs are"
            say(f"{what} being stopped; the manifests account for every item ...")
        for flow_run in active:
            if flow_run.state_type == "RUNNING":
                state: State[None] = Cancelling(message="The local stack is being stopped.")
                with suppress(ObjectNotFound):
                    await client.set_flow_run_state(flow_run.id, state)
        if asyncio.get_running_loop().time() > deadline:
            what = "1 run has" if len(active) == 1 else f"{len(active)} runs have"
            say(f"{what} not ended within {STOP_RUNS_SECONDS:g} s: ended by force.")
            return
        await asyncio.sleep(_POLL_SECONDS)
