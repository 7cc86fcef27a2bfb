"""Stopping the runs of a local stack: each ends with a complete manifest, before its worker ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling
from rich.console import Console

from deployments.services.overview import each
from deployments.services.service import FLOW
from deployments.terminal.talk import say_on
from tasks.domain.errors import ServerError
from tasks.prefect_side.server import prefect_server

STOP_RUNS_SECONDS = 20.0
"""Runs that have not ended within this time end with their workers."""
_POLL_SECONDS = 0.5


@asynccontextmanager
async def stopped_runs(workers: str, pools: Mapping[str, int | None], console: Console) -> AsyncIterator[None]:
    """Stop the runs of the workers whose names begin with ``workers``, then let the block end these workers.

    ``pools`` are their pools with their concurrency limits. The limits are 0 until the block has ended, or waiting runs
    would begin in place of those that end. Waiting runs stay Scheduled, so that the next stack begins them. A Pending
    run already belongs to a worker and no other would take it, so it is stopped once it has begun.
    """
    with suppress(ServerError):
        async with prefect_server() as client:
            await _allow(client, dict.fromkeys(pools, 0))
            await _stop(client, workers, console)
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


async def _stop(client: PrefectClient, workers: str, console: Console) -> None:
    deadline = asyncio.get_running_loop().time() + STOP_RUNS_SECONDS
    told = 0
    while active := await _active(client, workers):
        if len(active) > told:
            told = len(active)
            what = "1 run is" if told == 1 else f"{told} runs are"
            say_on(console, f"{what} being stopped; the manifests account for every item ...")
        for flow_run in active:
            if flow_run["state_type"] == "RUNNING":
                state: State[None] = Cancelling(message="The local stack is being stopped.")
                with suppress(ObjectNotFound):
                    await client.set_flow_run_state(UUID(flow_run["id"]), state)
        if asyncio.get_running_loop().time() > deadline:
            what = "1 run has" if len(active) == 1 else f"{len(active)} runs have"
            say_on(console, f"{what} not ended within {STOP_RUNS_SECONDS:g} s: ended by force.")
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _active(client: PrefectClient, workers: str) -> list[dict[str, Any]]:
    """The runs of batch services that a worker has taken and that have not ended."""
    body = {
        "flows": {"name": {"any_": [FLOW]}},
        "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}},
        "sort": "ID_DESC",
    }
    return [
        one
        async for one in each(client, "/flow_runs/filter", body)
        if str(one["labels"].get("prefect.worker.name", "")).startswith(workers)
    ]
