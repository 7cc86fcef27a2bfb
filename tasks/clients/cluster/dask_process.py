"""A Dask scheduler or worker of a run, as a process of its own; only holders of the run's certificate can connect.

Run as ``python -m tasks.clients.cluster.dask_process dask_worker ARGUMENT...`` (or ``dask_scheduler``) with the
arguments of Dask's own command, and the certificate in the environment (see dask_security).
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import dask
from distributed import Scheduler, Worker
from distributed.http.routing import RoutingApplication
from distributed.http.scheduler.api import CheckIdleHandler

from tasks.clients.cluster.dask_security import configuration, take_identity
from tasks.clients.processes.process_privacy import hide_memory

HTTP_ROUTES = ["distributed.http.health", "tasks.clients.cluster.dask_process"]
"""All that a scheduler in a pod serves without a certificate: the kubelet's probes, and its idle time."""
routes: list[tuple[Any, ...]] = [("/api/v1/check_idle", CheckIdleHandler, {})]
"""The route that Dask's operator requests from a scheduler; Dask looks it up by this name."""


class _Closed:
    """A placeholder where Dask expects an HTTP server."""

    port = 0

    def stop(self) -> None:
        """Do nothing: no server runs."""


def _no_http_server(node: Any, routes: Any, *_: Any, **__: Any) -> None:
    node.http_application = RoutingApplication(routes)  # type: ignore[no-untyped-call]
    node.http_server = node.services["dashboard"] = _Closed()


class ClosedScheduler(Scheduler):
    """A scheduler without an HTTP server."""

    start_http_server = _no_http_server


class ClosedWorker(Worker):
    """A worker without an HTTP server."""

    start_http_server = _no_http_server


def main(program: str, *arguments: str) -> None:
    """Run Dask's ``program`` with these arguments."""
    hide_memory()
    identity = take_identity()
    if identity is None:
        sys.exit("A Dask scheduler or worker of a run is started with the run's certificate; there is none.")
    dask.config.set({**configuration(identity), "distributed.scheduler.http.routes": HTTP_ROUTES})
    if scheduler := dask.config.get("scheduler-address", None):  # as set by Dask's operator
        dask.config.set({"scheduler-address": str(scheduler).replace("tcp://", "tls://", 1)})
    if program == "dask_worker":
        arguments = (*arguments, "--worker-class", f"{ClosedWorker.__module__}.{ClosedWorker.__name__}")
    importlib.import_module(f"distributed.cli.{program}").main(list(arguments), prog_name=program)


if __name__ == "__main__":
    from tasks.clients.cluster import dask_process  # its classes must be importable by this name, not as __main__

    dask_process.main(*sys.argv[1:])
