"""A Dask cluster whose workers are the instances of one run: processes of its own, pods, or an existing scheduler's."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import dask
from distributed import Client, Scheduler
from distributed.security import Security

from tasks.clients.dask_process import ClosedScheduler
from tasks.clients.dask_security import made_identity, security_of
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
        self,
        client: Client,
        security: Security,
        scheduler: Scheduler | None = None,
        own: LocalWorkers | Pods | None = None,
    ) -> None:
        self._client: Any = client
        self.security = security
        self._scheduler = scheduler
        self._own = own
        self._known: list[str] = []
        self._rpc = cast(Any, client.scheduler)
        self.address = str(self._rpc.address)

    @classmethod
    async def connect(cls, address: str, security: Security) -> DaskCluster:
        """An existing scheduler. Raises ModelServerError if it does not answer."""
        _quiet_dask()
        try:
            client = await Client(  # type: ignore[no-untyped-call]
                address, security=security, asynchronous=True, set_as_default=False, timeout=CONNECT_SECONDS
            )
            return cls(client, security)
        except (OSError, TimeoutError) as error:
            raise ModelServerError(
                f"The Dask scheduler {address} of the resource pool does not answer: {type(error).__name__}."
            ) from None

    @classmethod
    async def local(cls, count: int, threads: int, folder: Path, environment: Mapping[str, str]) -> DaskCluster:
        """A scheduler in this process, and ``count`` workers as processes that end with it, and are replaced.

        They talk to each other only, by a certificate of their own.

        Each has so many threads and exactly ``environment``; ``folder`` is for what Dask's scheduler wants to store.
        """
        _quiet_dask()
        identity = made_identity()
        security = security_of(identity)
        scheduler = await ClosedScheduler(
            host=HOST, port=0, protocol="tls", security=security, dashboard=False, local_directory=str(folder)
        )  # fmt: skip
        own = LocalWorkers(scheduler.address, count, threads, {**environment, **identity.variables()})
        try:
            cluster = await cls.connect(scheduler.address, security)
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
            cluster = await cls.connect(pods.address, pods.security)
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
    """Its log tells of every connection, and of each that ends; and nobody is to look for a dashboard."""
    dask.config.set({"distributed.dashboard.link": ""})
    logging.getLogger("distributed").setLevel(logging.ERROR)


async def start_cluster(
    cluster: Cluster, count: int, threads: int, folder: Path, environment: Mapping[str, str]
) -> DaskCluster:
    """The cluster that a resource pool says. Raises ModelServerError if there is none."""
    if cluster.kind == "scheduler":
        assert cluster.address is not None
        return await DaskCluster.connect(cluster.address, _security(cluster))
    return await DaskCluster.local(count, threads, folder, {**os.environ, **environment})


def _security(cluster: Cluster) -> Security:
    """What an existing scheduler is talked to with: the pool's certificates, else what Dask's configuration says.

    Raises ModelServerError if they cannot be used.
    """
    if cluster.ca_file is None:
        security = Security(require_encryption=cluster.encrypted)  # type: ignore[no-untyped-call]
    else:
        security = Security(  # type: ignore[no-untyped-call]
            require_encryption=True, tls_ca_file=cluster.ca_file, tls_client_cert=cluster.certificate_file,
            tls_client_key=cluster.key_file,
        )  # fmt: skip
    try:
        connecting: Any = security.get_connection_args("client")  # type: ignore[no-untyped-call]
        usable = connecting["ssl_context"] is not None
    except (OSError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ModelServerError(
            f"The certificates for the Dask scheduler {cluster.address} cannot be used ({said}): see ca_file, "
            "certificate_file and key_file of the resource pool's cluster."
        ) from None
    if cluster.encrypted and not usable:
        raise ModelServerError(
            f"The Dask scheduler {cluster.address} wants certificates, and there are none: state ca_file, "
            "certificate_file and key_file in the resource pool's cluster, or distributed.comm.tls in Dask's own "
            "configuration."
        )
    return security
