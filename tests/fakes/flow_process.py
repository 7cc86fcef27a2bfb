"""A flow run in a process of its own, as a worker's child process runs it: ``python flow_process.py <flow run id>``.

The flow is `batch_service`; its parameters are those of the flow run on the server that PREFECT_API_URL names.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


async def _run(task_id: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow_async

    from flows.batch_service import batch_service

    async with get_client() as client:
        flow_run = await client.read_flow_run(task_id)
    await run_flow_async(batch_service, flow_run, flow_run.parameters, return_type="state")


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    asyncio.run(_run(sys.argv[1]))
