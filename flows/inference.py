"""Distributed mode: the inference of a run as a nested flow on a Dask cluster, each worker of which is an instance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from prefect import flow, get_run_logger
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_dask.task_runners import DaskTaskRunner

from flows.stopping import sigterm_of_the_run
from tasks.distribution.coordinator import share_out
from tasks.distribution.run_cluster import cluster_of, server_address
from tasks.domain.run import Plan, Run, ShardDone
from tasks.infer import infer
from tasks.plan import digest_of, stored_plan


@flow(name="inference", flow_run_name="inference", persist_result=False)
async def inference(run: Run, plan: str) -> list[ShardDone]:
    """Process every shard of a run; idle instances get shards, or parts of them.

    ``plan`` is the digest of the run's plan.
    """
    server = {PREFECT_API_URL: await server_address()}
    # Tasks inherit these settings: without the address, an instance of a run on an embedded server would start
    # another server, which answers any client.
    with sigterm_of_the_run(), temporary_settings(server):
        done = await share_out(run, await stored_plan(run, plan), infer.submit)
    _done[run.task_id] = done
    return done


async def distributed(run: Run, planned: Plan) -> list[ShardDone]:
    """The nested flow :func:`inference`, on the cluster of the run's resource pool."""
    async with cluster_of(run) as cluster:
        runner: Any = DaskTaskRunner(address=cluster.address, client_kwargs={"security": cluster.security})
        nested: Callable[[Run, str], Awaitable[list[ShardDone]]] = inference.with_options(task_runner=runner)
        try:
            return await nested(run, digest_of(planned))
        except ObjectNotFound:  # the server has lost its database; the finished work is still valid
            if run.task_id not in _done:
                raise
            get_run_logger().warning("the Prefect server does not know this run any more")
            return _done[run.task_id]
        finally:
            _done.pop(run.task_id, None)


_done: dict[str, list[ShardDone]] = {}
"""The results of runs whose shards are all done, by run id."""
