"""What Prefect's server is told of a run while it runs: labels of the flow run, and a progress artifact."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID

import httpx
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import PrefectException

from tasks.domain.status import RunReport
from tasks.engine.progress import progress_of

REPORT_SECONDS = 2.0
"""Between two looks at the run; the server is told only what has changed."""

_PAUSES_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.4)


def artifact_key(service: str, kind: str) -> str:
    """Key of a service's artifacts of a kind: lower-case letters, digits and dashes, as Prefect wants it."""
    return f"{service.lower().replace('_', '-')}-{kind}".strip("-")


async def report(client: PrefectClient, task_id: str, look: Callable[[], Awaitable[object]]) -> None:
    """Tell the server how far the run is, and ``look`` what the server says, every few seconds until cancelled.

    A server that does not answer is told the next time. The last word is :func:`tell`'s, at the run's end.
    """
    told = RunReport()
    artifact: UUID | None = None
    while True:
        progress = progress_of(task_id)
        with suppress(httpx.HTTPError, PrefectException):
            if (now := progress.report) != told:
                await _label(client, task_id, now)
                if progress.service and now.items:
                    artifact = await _show(artifact, progress.service, now)
                told = now
            await look()
        await asyncio.sleep(REPORT_SECONDS)


async def _show(artifact: UUID | None, service: str, now: RunReport) -> UUID | None:
    share = 100 * now.done / now.items
    text = f"{now.done} of {now.items} items, {now.failed} failed"
    if artifact is None:
        return await acreate_progress_artifact(share, key=artifact_key(service, "progress"), description=text)
    await aupdate_progress_artifact(artifact, share, description=text)
    return artifact


async def tell(client: PrefectClient, task_id: str) -> None:
    """Tell the server how far the run is now; a server that does not answer keeps what it was told before."""
    with suppress(httpx.HTTPError, PrefectException):
        await _label(client, task_id, progress_of(task_id).report)


async def _label(client: PrefectClient, task_id: str, now: RunReport) -> None:
    """Set the labels of the flow run. Raises httpx.HTTPError.

    Prefect's server on SQLite often answers 503 here: it reads and then writes while the tasks of the run are noted;
    its client would wait two seconds, which every short run would take longer.
    """
    request = client._client.build_request("PATCH", f"/flow_runs/{task_id}/labels", json=now.labels())
    for pause in _PAUSES_SECONDS:
        answer = await httpx.AsyncClient.send(client._client, request)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            answer.raise_for_status()
            return
        await asyncio.sleep(pause)
    await client._client.send(request)
