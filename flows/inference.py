"""The inference of a run: its shards, mapped over this process's instances, or over those of a Dask cluster."""

from __future__ import annotations

from prefect import flow, unmapped
from prefect_dask import DaskTaskRunner

from flows.waiting import finished
from tasks.distributed import cluster_of, share_out
from tasks.domain.run import Plan, Run, ShardDone
from tasks.infer import infer
from tasks.plan import stored_plan


async def inferred(run: Run, planned: Plan) -> list[ShardDone]:
    """What came of every shard: in standalone mode from this flow's own tasks, in distributed mode from a nested flow."""
    if not run.is_distributed:
        return await finished(infer.map(unmapped(run), unmapped(planned.items), planned.shards))
    async with cluster_of(run) as cluster:
        nested = inference.with_options(task_runner=DaskTaskRunner(address=cluster.address))
        return await nested(run)


@flow(name="inference", flow_run_name="inference", persist_result=False)
async def inference(run: Run) -> list[ShardDone]:
    """Distributed mode: each Dask worker is an instance; shards, and parts of them, go to whoever has nothing to do."""
    return await share_out(run, await stored_plan(run), infer.submit)
