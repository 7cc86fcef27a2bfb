"""The DAG of a batch service: validate, plan (mapping), infer (mapped over shards), publish."""

from __future__ import annotations

from prefect import unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from flows.calling import callable_flow
from flows.stopping import stoppable
from flows.waiting import finished
from tasks.distribution.unstarted import not_started
from tasks.distribution.worker_side import instances
from tasks.domain.errors import ModelServerError
from tasks.domain.run import RunResult, RunStopped
from tasks.domain.service import BatchService
from tasks.infer import SHARDS_IN_PROCESS, infer
from tasks.plan import plan
from tasks.publish import publish
from tasks.validate import validate


@callable_flow(
    name="batch_service",
    flow_run_name="{service.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=SHARDS_IN_PROCESS),
    persist_result=False,
)
@stoppable
async def batch_service(service: BatchService) -> RunResult:
    """Run a batch service once: every item of its input gets a result file and a line in the output manifest.

    If no instance of the model can be started, each line gives the reason.
    """
    async with instances():
        run = await validate(service)
        planned = await plan(run)
        try:
            if run.is_distributed and planned.shards:
                from flows.inference import distributed  # Dask takes a while to import

                done = await distributed(run, planned)
            else:
                done = await finished(infer.map(unmapped(run), unmapped(planned.items), planned.shards))
        except (ModelServerError, RunStopped) as error:
            done = await not_started(run, planned, error)
    return await publish(run, planned, done)
