"""Every tie to a private part of a library, and why there is one: what to look at when a library is upgraded.

tests/flows/test_internals.py fails when a library moves one, and when one is made that is not listed here.
Those that need only a few lines are functions and names of this module. The others are where they are used:

| tie | where | why |
| --- | --- | --- |
| `SubprocessASGIServer._instances`, `_run_uvicorn_command`, `find_available_port` | `prefect_side/embedded_server` | \
Prefect's embedded server has no password, and a port that another account may take |
| `GLOBAL_SETTINGS_CONTEXT` | `prefect_side/embedded_server` | its password, for all threads |
| `Flow.__class__` | `flows/calling` | `with_options` returns a plain `Flow` |
| `wrapped_future` | `distribution/coordinator` | the Dask future of a shard that is given up |
| `IOStream is not idle`: words of Tornado's | `clients/cluster/cluster` | a connection that is closed too early |
| `start_http_server`, `CheckIdleHandler` | `clients/cluster/dask_process` | no HTTP server without a certificate |
| `dask_kubernetes.operator._objects` | `clients/cluster/pod_cluster` | `KubeCluster` connects only without TLS |
| `_call_s3`, `_s3` | `clients/storage/odd_keys` | s3fs as a client of S3, without its paths, which change odd keys |
| `_client._endpoint.http_session._sessions`, `_close` | `clients/packages/packages` | s3fs closes in another loop |
| `_expiry_time` | `clients/storage/s3_client` | when botocore's keys end; obstore asks for it |
| `opentelemetry.sdk._logs`, `_log_exporter` | `clients/logs/log_export` | its logs have no public name |
| names of loggers | `clients/logs/log_export`, `deployments/terminal/door` | what libraries print themselves |
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    import httpx
    from prefect.client.orchestration import PrefectClient

RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")  # their records, with a run's id, go to its Logs tab
EVENTS_LOGGER = "EventsWorker"  # warns of events that are still unsent at exit
NEVER_AWAITED = "coroutine 'run_task_async' was never awaited"  # warns of tasks that a stopped run has not begun
NO_HOME = "Failed to create the Prefect home"  # a warning of what is reported in our own words
NO_PLUGINS = "Failed to initialize plugins"  # printed for settings that are reported in our own words
BUSY = 503
BUSY_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between the first attempts; Prefect's client makes the last ones."""


async def answer_once(client: PrefectClient, method: str, path: str, **options: Any) -> httpx.Response:
    """The response to one request. Prefect's client would pause for seconds before a retry, and retry for minutes."""
    import httpx

    http = client._client
    return await httpx.AsyncClient.send(http, http.build_request(method, path, **options))


async def answer_soon(client: PrefectClient, method: str, path: str, **options: Any) -> httpx.Response:
    """The response to a request, asked again at once while the server answers 503. Raises httpx.HTTPError.

    A server on SQLite often does: it reads and then writes while the states of the run's tasks are recorded. Prefect's
    client would wait two seconds before a retry, which would make every short run longer.
    """
    import asyncio  # here: every command reads this module's names

    for pause in BUSY_PAUSES:
        answer = await answer_once(client, method, path, **options)
        if answer.status_code != BUSY:
            return answer.raise_for_status()
        await asyncio.sleep(pause)
    return (await client._client.request(method, path, **options)).raise_for_status()


@cache
def shipped_workers() -> dict[str, Any]:
    """Prefect's own metadata on all kinds of workers, so that nothing need be installed for those used elsewhere."""
    import prefect

    views = Path(prefect.__file__).parent / "server/api/collections_data/views"
    found: dict[str, Any] = json.loads((views / "aggregate-worker-metadata.json").read_bytes())
    return found


def without_integrations() -> None:
    """In a process that only processes shards, keep Prefect from importing all of its integrations.

    Prefect would do so to find the class of a task's result storage, which is one of its own; the clients of Docker and
    Kubernetes cost an instance one second and 70 MB.
    """
    from prefect._internal.plugins import collections

    if collections._collections is None:
        collections._collections = {}


class _Unread(Console):
    def on_broken_pipe(self) -> None:
        self.quiet = True


def never_exit(console: Console) -> None:
    """Have a console fall silent when its reader has gone; Rich would raise SystemExit in the thread that writes next.

    Its class is changed, since Prefect's handler makes the console itself.
    """
    console.__class__ = _Unread
