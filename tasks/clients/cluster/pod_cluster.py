"""The pods of a run on a Kubernetes cluster: made by Dask's operator, watched while they run, removed at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from tasks.clients.cluster.dask_security import security_of
from tasks.clients.cluster.pods import RUN_LABEL, PodGroup, cluster_manifest, secret_manifest, trouble_of
from tasks.domain.errors import ModelServerError

OPERATOR_SECONDS = 60.0
"""A running operator picks up a new DaskCluster within a moment."""
LOOK_SECONDS = 5.0
CRASHING_SECONDS = 60.0
"""A scheduler that has kept crashing for this long will not start."""
CLOSE_SECONDS = 20.0
_log = logging.getLogger(__name__)


class Pods:
    """The pods of one try of a run. Lives on the engine's event loop. ``tell`` is called with the reason why they do
    not run.
    """

    def __init__(self, group: PodGroup, tell: Callable[[str], None] = lambda detail: None) -> None:
        self._group = group
        self._tell = tell
        self._api: Any = None
        self._looking: asyncio.Task[None] | None = None
        self.security = security_of(group.identity)
        self.address = ""
        """Of Dask's scheduler, once started."""
        self.detail = ""
        """Why pods do not run, as of the last look."""

    async def start(self, timeout_seconds: float) -> None:
        """Create the pods; returns once Dask's scheduler answers. Raises ModelServerError, after removing the pods."""
        try:
            async with _translated(self._group), asyncio.timeout(timeout_seconds):
                await self._start()
        except TimeoutError:
            await self.close()
            raise ModelServerError(
                f"The pods of the DaskCluster {self._group.name} (namespace {self._group.namespace}) were not ready "
                f"within {timeout_seconds / 60:g} minutes. {self.detail}".rstrip()
            ) from None
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        import kr8s.asyncio
        from dask_kubernetes.operator._objects import DaskCluster
        from kr8s.asyncio.objects import Secret

        group = self._group
        self._api = await kr8s.asyncio.api(namespace=group.namespace)
        await self._remove(f"{RUN_LABEL}={group.task_id}")  # an earlier try of the run that was killed
        cluster: Any = DaskCluster(cluster_manifest(group), namespace=group.namespace, api=self._api)
        await cluster.create()
        self._looking = asyncio.create_task(self._look())
        # After its owner, so that a process killed here leaves no Secret; the pods wait for it.
        secret = await Secret(secret_manifest(group, cluster.metadata.uid), api=self._api)
        await secret.create()
        await self._taken_up(cluster)
        self.address = await self._connected()

    async def _taken_up(self, cluster: Any) -> None:
        """Wait until the operator has picked it up. Raises ModelServerError if it does not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(OPERATOR_SECONDS):
                while not (cluster.raw.get("status") or {}).get("phase"):
                    await asyncio.sleep(0.25)
                    await cluster.async_refresh()
                return
        raise ModelServerError(
            f"The DaskCluster {self._group.name} (namespace {self._group.namespace}) was made, but not taken up within "
            f"{OPERATOR_SECONDS:g} s: is Dask's operator (dask-kubernetes-operator) running on the cluster?"
        )

    async def _connected(self) -> str:
        """The scheduler's address. Not from dask_kubernetes' own class, which connects only without TLS."""
        from dask_kubernetes.operator.kubecluster.kubecluster import wait_for_service
        from dask_kubernetes.operator.networking import get_scheduler_address, wait_for_scheduler

        service = f"{self._group.name}-scheduler"
        await wait_for_scheduler(self._group.name, self._group.namespace, timeout=CRASHING_SECONDS)
        await wait_for_service(service, self._group.namespace)
        return str(await get_scheduler_address(service, self._group.namespace)).replace("tcp://", "tls://", 1)

    async def _look(self) -> None:
        """Watch for reasons why pods do not run, and report each change."""
        import httpx
        import kr8s
        from kr8s.asyncio.objects import Pod

        label = f"dask.org/cluster-name={self._group.name}"
        while True:
            with suppress(OSError, kr8s.ServerError, kr8s.APITimeoutError, httpx.HTTPError):
                found = Pod.list(api=self._api, namespace=self._group.namespace, label_selector=label)
                pods = [dict(one.raw) async for one in found if not isinstance(one, dict)]
                detail, before = trouble_of(pods), self.detail
                self.detail = detail
                if detail and detail != before:
                    self._tell(detail)
            await asyncio.sleep(LOOK_SECONDS)

    async def _remove(self, label: str) -> None:
        """Delete the run's DaskClusters; what the operator made from them, and the Secrets, are deleted with them."""
        from dask_kubernetes.operator._objects import DaskCluster

        namespace = self._group.namespace
        found = [one async for one in DaskCluster.list(api=self._api, namespace=namespace, label_selector=label)]
        for one in found:
            await one.async_delete()

    async def close(self) -> None:
        """Remove the pods; returns once the cluster has accepted that. If that fails, the operator removes them when
        idle.
        """
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._api is None:
            return
        try:
            async with _translated(self._group), asyncio.timeout(CLOSE_SECONDS):
                await self._remove(f"{RUN_LABEL}={self._group.task_id}")
        except (ModelServerError, TimeoutError) as error:
            seconds = self._group.idle_seconds
            _log.warning("%s is not deleted, the operator does so in %d s: %s", self._group.name, seconds, error)


@asynccontextmanager
async def _translated(group: PodGroup) -> AsyncIterator[None]:
    """Errors of the Kubernetes clients as ModelServerError."""
    try:
        import httpx
        import kr8s
        from dask_kubernetes.exceptions import CrashLoopBackOffError
    except ImportError as error:
        raise ModelServerError(
            f"Instances of the resource pool {group.pool.name} are pods, for which the run's image needs "
            f"`thresher[kubernetes]`: {error}"
        ) from None
    try:
        yield
    except kr8s.NotFoundError:
        raise ModelServerError(f"The DaskCluster {group.name} was deleted while its pods were started.") from None
    except CrashLoopBackOffError as error:
        detail = f"The scheduler of the DaskCluster {group.name} (namespace {group.namespace}) does not start: {error}"
        raise ModelServerError(detail) from None
    except kr8s.ServerError as error:
        raise ModelServerError(_refused(group, error)) from None
    except (kr8s.APITimeoutError, OSError, ValueError, httpx.HTTPError) as error:
        if isinstance(error, TimeoutError):
            raise
        detail = f"The Kubernetes cluster does not answer ({type(error).__name__}: {error})"
        raise ModelServerError(f"{detail}, so the pods of the run cannot be made.") from None


def _refused(group: PodGroup, error: Any) -> str:
    status = getattr(error.response, "status_code", None)
    if status == 404:
        return (
            f"The Kubernetes cluster knows no DaskCluster: the resource pool {group.pool.name} needs Dask's operator "
            "(dask-kubernetes-operator), see infra/kubernetes/README.md."
        )
    if status == 403:
        return (
            f"The service account {group.pool.service_account} of the resource pool {group.pool.name} may not make the "
            f"pods of a run in the namespace {group.namespace} (infra/kubernetes/instances.yaml): {error}"
        )
    return f"The Kubernetes cluster refuses the pods of the run: {error}"
