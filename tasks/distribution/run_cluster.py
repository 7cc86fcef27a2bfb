"""The cluster of a run, as its pool defines it, from before the inference until after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any, NamedTuple

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.context import get_settings_context

from tasks.clients.cluster.cluster import DaskCluster, start_cluster
from tasks.clients.cluster.pod_cluster import Pods
from tasks.clients.cluster.pods import PodGroup
from tasks.domain.instance import GivenEnvironment
from tasks.domain.pool import Cluster
from tasks.domain.run import Run
from tasks.domain.settings import read_settings
from tasks.domain.sharing import SHARDS_PER_INSTANCE
from tasks.engine.ending import unless_stopped
from tasks.engine.loop import engine_loop
from tasks.prefect_side.blocks import resolved_environment

IDLE_SECONDS = 600.0
"""Pods without work for this long, in addition to the time for a start, have lost their run."""


async def server_address() -> str:
    """The address of the Prefect server in use; the settings lack that of an embedded one."""
    async with get_client() as client:
        return str(client.api_url).rstrip("/")


@asynccontextmanager
async def cluster_of(run: Run) -> AsyncIterator[DaskCluster]:
    """The cluster of a run's pool, for the duration of the block; its workers become instances on request."""
    where = run.pool.cluster if run.pool is not None else Cluster()
    loop = engine_loop()
    environment = {
        **get_settings_context().settings.to_environment_variables(exclude_unset=True),
        "PREFECT_API_URL": await server_address(),
    }
    folder = read_settings().cache / "dask"
    threads = SHARDS_PER_INSTANCE + 1  # one more, for a shard whose report is being written
    if where.kind == "kubernetes":
        pods = Pods(await _pods_of(run, threads, environment), _warn_once())
        starting = DaskCluster.of_pods(pods, run.service.timeout_minutes * 60)
        making = "the pods of its instances were made"
        # On the engine's event loop, where a stop waits until the removal of the pods is requested.
        cluster = await loop.run(unless_stopped(starting, run.task_id, None, None, while_=making))
    else:
        cluster = await loop.run(start_cluster(where, run.service.instances, threads, folder, environment))
    _opened[run.task_id] = Opened(cluster, get_run_logger())
    try:
        yield cluster
    finally:
        del _opened[run.task_id]
        await loop.run(cluster.close())


async def _pods_of(run: Run, threads: int, own: Mapping[str, str]) -> PodGroup:
    """The specification of a run's pods. The service's secrets are resolved only here and in the Secret."""
    assert run.pool is not None
    image = run.config.swr_location if run.serving == "sidecar" else None
    given = await resolved_environment(run.service) if image is not None else GivenEnvironment()
    return PodGroup(
        task_id=run.task_id, attempt=run.attempt, service=run.service.name, pool=run.pool, flavor=run.flavor,
        count=run.service.instances, threads=threads, own=own, model_image=image,
        model_port=read_settings().sidecar_port, given=given.values,
        idle_seconds=round(run.service.timeout_minutes * 60 + IDLE_SECONDS),
    )  # fmt: skip


def _warn_once() -> Callable[[str], None]:
    """A callback that writes why pods do not run to the run's Logs tab, from the engine's thread."""
    logger, context = get_run_logger(), copy_context()
    return lambda detail: context.run(logger.warning, "pods: %s", detail)


class Opened(NamedTuple):
    """A cluster, and the logger of the run itself, not of its nested flow."""

    cluster: DaskCluster
    logger: Any


_opened: dict[str, Opened] = {}
"""By task id, since a flow's parameters can only be data."""


def opened_cluster(task_id: str) -> Opened:
    """The cluster of a run, for its nested flow."""
    return _opened[task_id]
