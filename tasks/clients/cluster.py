"""A Dask cluster whose workers are the instances of one run: processes of its own, pods, or an existing scheduler's."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from distributed import Client, Scheduler

from tasks.clients.dask_workers import HOST, LocalWorkers
from tasks.clients.pod_cluster import Pods
from tasks.domain.errors import ModelServerError
from tasks.domain.pool import Cluster

CONNECT_SECONDS = 60.0
ASK_SECONDS = 30.0
"""A worker that does not answer for so long is asked again later."""


class DaskCluster:
    """The workers that there are, by address, and questions to them beside their tasks. Lives on the engine's loop."""

    def __init__(
        self, client: Client, scheduler: Scheduler | None = None, own: LocalWorkers | Pods | None = None
    ) -> None:
        self._client: Any = client
        self._scheduler = scheduler
        self._own = own
        self._known: list[str] = []
        self._rpc = cast(Any, client.scheduler)
        self.address = str(self._rpc.address)

    @classmethod
    async def connect(cls, address: str) -> DaskCluster:
        """An existing scheduler. Raises ModelServerError if it does not answer."""
        _quiet_dask()
        try:
            return cls(
                await Client(  # type: ignore[no-untyped-call]
                    address, asynchronous=True, set_as_default=False, timeout=CONNECT_SECONDS
                )
            )
        except (OSError, TimeoutError) as error:
            raise ModelServerError(
                f"The Dask scheduler {address} of the resource pool does not answer: {type(error).__name__}."
            ) from None

    @classmethod
    async def local(cls, count: int, threads: int, folder: Path, environment: Mapping[str, str]) -> DaskCluster:
        """A scheduler in this process, and ``count`` workers as processes that end with it, and are replaced.

        Each has so many threads and exactly ``environment``; ``folder`` is for what Dask's scheduler wants to store.
        """
        _quiet_dask()
        scheduler = await Scheduler(
            host=HOST, port=0, dashboard=False, dashboard_address=f"{HOST}:0", local_directory=str(folder)
        )  # fmt: skip
        own = LocalWorkers(scheduler.address, count, threads, environment)
        try:
            cluster = await cls.connect(scheduler.address)
        except BaseException:
            await scheduler.close()
            raise
        cluster._scheduler, cluster._own = scheduler, own
        own.start()
        return cluster

    @classmethod
    async def of_pods(cls, pods: Pods, timeout_seconds: float) -> DaskCluster:
        """A scheduler and workers that are pods, made within this time. Raises ModelServerError if they are not."""
        await pods.start(timeout_seconds)
        try:
            cluster = await cls.connect(pods.address)
        except BaseException:
            await pods.close()
            raise
        cluster._own = pods
        return cluster

    async def workers(self) -> list[str]:
        """Addresses of the workers that the scheduler knows now; the last known ones while it does not answer.

        Raises ModelServerError once it has not answered for long.
        """
        if self._client.status in ("closing", "closed"):
            raise self.gone()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(ASK_SECONDS):
                self._known = list((await self._rpc.identity(n_workers=-1))["workers"])
        return self._known

    async def ask(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What ``function``, an importable one, gives in the process of a worker.

        Raises what it raises there, OSError or TimeoutError if the worker does not answer.
        """
        async with asyncio.timeout(ASK_SECONDS):
            answers = await self._client.run(function, *arguments, workers=[worker])
        if worker not in answers:
            raise OSError(f"the worker {worker} is gone")
        return answers[worker]

    def gone(self) -> ModelServerError:
        """The error of a scheduler that is not there any more."""
        return ModelServerError(f"The Dask scheduler {self.address} of the resource pool does not answer any more.")

    @property
    def said(self) -> str:
        """What its own process that ended by itself has printed last, or what keeps its pods from running."""
        return self._own.said if self._own is not None else ""

    async def close(self) -> None:
        """Leave the cluster; its own processes have ended when this returns."""
        if self._own is not None:
            await self._own.close()
        with suppress(OSError, TimeoutError):
            await self._client.close(timeout=5)
        if self._scheduler is not None:
            await self._scheduler.close()


def _quiet_dask() -> None:
    """Its log tells of every connection, and of each that ends."""
    logging.getLogger("distributed").setLevel(logging.ERROR)


async def start_cluster(
    cluster: Cluster, count: int, threads: int, folder: Path, environment: Mapping[str, str]
) -> DaskCluster:
    """The cluster that a resource pool says. Raises ModelServerError if there is none."""
    if cluster.kind == "scheduler":
        assert cluster.address is not None
        return await DaskCluster.connect(cluster.address)
    return await DaskCluster.local(count, threads, folder, {**os.environ, **environment})
