"""A Dask cluster whose workers are the instances of one run: own processes, pods, or those of an existing scheduler."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import dask
from distributed import Client, Scheduler
from distributed.security import Security

from tasks.clients.cluster.dask_process import ClosedScheduler
from tasks.clients.cluster.dask_security import made_identity, security_of
from tasks.clients.cluster.dask_workers import HOST, LocalWorkers
from tasks.clients.cluster.pod_cluster import Pods
from tasks.domain.errors import ModelServerError
from tasks.domain.pool import Cluster

CONNECT_SECONDS = 60.0
NOT_IDLE = "IOStream is not idle"
ASK_SECONDS = 30.0
"""A worker that does not answer within this time is asked again later."""


class DaskCluster:
    """The current workers, by address, and calls to them outside their tasks. Belongs to the engine's event loop."""

    def __init__(self, client: Client, security: Security) -> None:
        self._client: Any = client
        self.security = security
        self._scheduler: Scheduler | None = None
        self._own: LocalWorkers | Pods | None = None
        self._known: list[str] = []
        self._rpc = cast(Any, client.scheduler)
        self.address = str(self._rpc.address)

    @classmethod
    async def connect(cls, address: str, security: Security) -> DaskCluster:
        """Connect to an existing scheduler. Raises ModelServerError if it does not answer."""
        _quiet_dask()
        client: Any = Client(  # type: ignore[no-untyped-call]
            address, security=security, asynchronous=True, set_as_default=False, timeout=CONNECT_SECONDS
        )
        try:
            with _connecting():
                return cls(await client, security)
        except (OSError, TimeoutError) as error:
            with suppress(OSError, TimeoutError):
                await client.close(timeout=5)
            raise ModelServerError(
                f"The Dask scheduler {address} of the resource pool does not answer: {type(error).__name__}."
            ) from None

    @classmethod
    async def local(cls, count: int, threads: int, folder: Path, environment: Mapping[str, str]) -> DaskCluster:
        """A scheduler in this process and ``count`` worker processes, which end with it and are replaced.

        They accept connections only from each other, by a certificate of their own.

        Each worker has ``threads`` threads and exactly ``environment``; ``folder`` is for files of Dask's scheduler.
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
        """A scheduler and workers in pods. Raises ModelServerError if they are not up within ``timeout_seconds``."""
        await pods.start(timeout_seconds)
        try:
            cluster = await cls.connect(pods.address, pods.security)
        except BaseException:
            await pods.close()
            raise
        cluster._own = pods
        return cluster

    async def workers(self) -> list[str]:
        """Addresses of the scheduler's current workers; the last known ones while it does not answer.

        Raises ModelServerError once it has been unreachable for so long that Dask's client has closed.
        """
        if self._client.status in ("closing", "closed"):
            raise self.gone()
        with suppress(OSError, TimeoutError), _connecting():
            async with asyncio.timeout(ASK_SECONDS):
                self._known = list((await self._rpc.identity(n_workers=-1))["workers"])
        return self._known

    async def ask(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function``, which must be importable, in a worker's process, and return its result.

        Raises its exceptions, and OSError or TimeoutError if the worker does not answer.
        """
        async with asyncio.timeout(ASK_SECONDS):
            with _connecting():
                answers = await self._client.run(function, *arguments, workers=[worker])
        if worker not in answers:
            raise OSError(f"the worker {worker} is gone")
        return answers[worker]

    def gone(self) -> ModelServerError:
        """The error for a scheduler that is gone."""
        return ModelServerError(f"The Dask scheduler {self.address} of the resource pool does not answer any more.")

    @property
    def detail(self) -> str:
        """The last output of an own worker that ended by itself, or the reason why its pods do not run."""
        return self._own.detail if self._own is not None else ""

    async def close(self) -> None:
        """Leave the cluster; its own processes have ended when this returns."""
        if self._own is not None:
            await self._own.close()
        with suppress(OSError, TimeoutError):
            await self._client.close(timeout=5)
        if self._scheduler is not None:
            await self._scheduler.close()


@contextmanager
def _connecting() -> Iterator[None]:
    """A connection that the other side closes before it is encrypted is an OSError; Tornado raises ValueError."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(NOT_IDLE):  # it has no class of its own
            raise
        raise ConnectionError("the connection was closed before it was encrypted") from None


def _quiet_dask() -> None:
    """Silence Dask's log, which reports every connection opened or lost, and hide the link to a dashboard."""
    dask.config.set({"distributed.dashboard.link": ""})
    logging.getLogger("distributed").setLevel(logging.ERROR)


async def start_cluster(
    cluster: Cluster, count: int, threads: int, folder: Path, environment: Mapping[str, str]
) -> DaskCluster:
    """The cluster that a resource pool specifies. Raises ModelServerError if it is unavailable."""
    if cluster.kind == "scheduler":
        assert cluster.address is not None
        return await DaskCluster.connect(cluster.address, _security(cluster))
    return await DaskCluster.local(count, threads, folder, {**os.environ, **environment})


def _security(cluster: Cluster) -> Security:
    """The TLS settings for an existing scheduler: the pool's certificates, else those of Dask's configuration.

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
        detail = f"{type(error).__name__}: {error}"
        raise ModelServerError(
            f"The certificates for the Dask scheduler {cluster.address} cannot be used ({detail}): see ca_file, "
            "certificate_file and key_file of the resource pool's cluster."
        ) from None
    if cluster.encrypted and not usable:
        raise ModelServerError(
            f"The Dask scheduler {cluster.address} wants certificates, and there are none: state ca_file, "
            "certificate_file and key_file in the resource pool's cluster, or distributed.comm.tls in Dask's own "
            "configuration."
        )
    return security
