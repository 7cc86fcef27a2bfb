"""A Dask cluster whose workers are the instances of one run: its own processes, or an existing scheduler's workers."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import dask
from distributed import Client, Scheduler

from tasks.clients.lifeline import GuardedProcess
from tasks.domain.errors import ModelServerError
from tasks.domain.pool import Cluster

HOST = "127.0.0.1"
CONNECT_SECONDS = 60.0
ASK_SECONDS = 30.0
"""A worker that does not answer for so long is asked again later."""
logging.getLogger("distributed").setLevel(logging.ERROR)  # it tells of every connection, and of each that ends
MOST_FAILURES = 20
"""A shard that was on so many workers that died is not given to another one by Dask itself."""


class DaskCluster:
    """The workers that there are, by address, and questions to them beside their tasks. Lives on the engine's loop."""

    def __init__(self, client: Client, scheduler: Scheduler | None = None, own: LocalWorkers | None = None) -> None:
        self._client: Any = client
        self._scheduler = scheduler
        self._own = own
        self._rpc = cast(Any, client.scheduler)
        self.address = str(self._rpc.address)

    @classmethod
    async def connect(cls, address: str) -> DaskCluster:
        """An existing scheduler. Raises ModelServerError if it does not answer."""
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

        Each has so many threads and exactly ``environment``; ``folder`` is for what Dask wants to store.
        """
        with dask.config.set({"distributed.scheduler.allowed-failures": MOST_FAILURES}):
            scheduler = await Scheduler(host=HOST, port=0, dashboard=False, dashboard_address=f"{HOST}:0")
        own = LocalWorkers(scheduler.address, count, threads, folder, environment)
        try:
            cluster = await cls.connect(scheduler.address)
        except BaseException:
            await scheduler.close()
            raise
        cluster._scheduler, cluster._own = scheduler, own
        own.start()
        return cluster

    async def workers(self) -> list[str]:
        """Addresses of the workers that the scheduler knows now; the last known ones while it does not answer."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(ASK_SECONDS):
                return list((await self._rpc.identity(n_workers=-1))["workers"])
        return list(self._client.scheduler_info(n_workers=-1)["workers"])

    async def ask(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What ``function``, an importable one, gives in the process of a worker.

        Raises what it raises there, OSError or TimeoutError if the worker does not answer.
        """
        async with asyncio.timeout(ASK_SECONDS):
            answers = await self._client.run(function, *arguments, workers=[worker])
        if worker not in answers:
            raise OSError(f"the worker {worker} is gone")
        return answers[worker]

    @property
    def said(self) -> str:
        """What the last process of its own that ended by itself has printed last; empty if none has."""
        return self._own.said if self._own is not None else ""

    async def close(self) -> None:
        """Leave the cluster; its own processes have ended when this returns."""
        if self._own is not None:
            await self._own.close()
        with suppress(OSError, TimeoutError):
            await self._client.close(timeout=5)
        if self._scheduler is not None:
            await self._scheduler.close()


class LocalWorkers:
    """Dask workers as processes of this machine, each under a warden; one that ends by itself is replaced."""

    def __init__(self, scheduler: str, count: int, threads: int, folder: Path, environment: Mapping[str, str]) -> None:
        self._command = (
            *(sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--no-nanny", "--no-dashboard"),
            *("--nthreads", str(threads), "--nworkers", "1", "--memory-limit", "0", "--host", HOST),
            *("--local-directory", str(folder)),
        )
        self._count = count
        self._folder = folder
        self._environment = dict(environment)
        self._logs: Path | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self.said = ""

    def start(self) -> None:
        """Start them; they become workers of the cluster one by one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._keepers = [asyncio.create_task(self._keep(number)) for number in range(self._count)]

    async def _keep(self, number: int) -> None:
        pause = 0.0
        while True:
            logs = Path(tempfile.mkdtemp(prefix="thresher-"))
            log = logs / f"worker-{number}.log"
            process = await GuardedProcess.start(
                self._command, folder=Path.cwd(), environment=self._environment, log=log
            )
            try:
                await process.command_ended()
                with suppress(OSError):
                    self.said = log.read_text(errors="replace")[-2000:]
            finally:
                await process.stop()
                _remove(log)
            pause = min(30.0, pause * 2 + 0.5)
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """End them all."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)


def _remove(log: Path) -> None:
    with suppress(OSError):
        log.unlink()
    with suppress(OSError):
        log.parent.rmdir()


async def start_cluster(
    cluster: Cluster, count: int, threads: int, folder: Path, environment: Mapping[str, str]
) -> DaskCluster:
    """The cluster that a resource pool says. Raises ModelServerError if there is none."""
    if cluster.kind == "scheduler":
        assert cluster.address is not None
        return await DaskCluster.connect(cluster.address)
    return await DaskCluster.local(count, threads, folder, {**os.environ, **environment})
