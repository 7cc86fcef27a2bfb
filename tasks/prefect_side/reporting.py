"""What a run reports to Prefect's server while it runs: labels of the flow run, and a progress artifact."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID

import httpx
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import PrefectException

from tasks.clients.processes.process_identity import own_process
from tasks.domain.status import PROCESS_LABEL, RunReport
from tasks.engine.progress import progress_of
from tasks.prefect_side.internals import answer_soon

REPORT_SECONDS = 2.0
"""Interval between two looks at the run; only changes are sent to the server."""
LAST_TRIES = 5
"""How often the final report is sent to a server that does not answer."""


def artifact_key(service: str, kind: str) -> str:
    """Key of a service's artifacts of a kind: lower-case letters, digits and dashes, as Prefect requires.

    A name that has to be changed for that gets some digits of its digest, so that no two services share a key.
    """
    plain = re.sub(r"[^a-z0-9-]", "-", service.lower()).strip("-")
    if plain == service:
        return f"{plain}-{kind}"
    return "-".join(part for part in (plain, hashlib.sha256(service.encode()).hexdigest()[:6], kind) if part)


class RunReporter:
    """Reports the progress of a run to the server. If the server does not answer, the next report catches up."""

    def __init__(self, client: PrefectClient, flow_run: UUID, task_id: str) -> None:
        self._client = client
        self._flow_run = flow_run
        self._task_id = task_id
        self._written: RunReport | None = None
        self._artifact: UUID | None = None
        self._one_at_a_time = asyncio.Lock()

    async def follow(self, look: Callable[[], Awaitable[object]]) -> None:
        """Report to the server, and ``look`` at what the server has, every few seconds until cancelled."""
        while True:
            await asyncio.shield(self.tell())  # an interrupted report would be sent twice
            await asyncio.sleep(REPORT_SECONDS)
            with suppress(httpx.HTTPError, PrefectException):
                await look()

    async def tell(self) -> None:
        """Report what has changed since the last report."""
        async with self._one_at_a_time:
            progress = progress_of(self._task_id)
            now = progress.report
            if now == self._written:
                return
            with suppress(httpx.HTTPError, PrefectException):
                labels = {**now.labels(), PROCESS_LABEL: own_process()}
                await answer_soon(self._client, "PATCH", f"/flow_runs/{self._flow_run}/labels", json=labels)
                if progress.service and now.items:
                    await self._show(progress.service, now)
                self._written = now

    async def end(self) -> None:
        """Send the final report, which gives the counts of a run that has ended; retried if need be."""
        for _ in range(LAST_TRIES):
            await self.tell()
            if self._written == progress_of(self._task_id).report:
                return
            await asyncio.sleep(REPORT_SECONDS)

    async def _show(self, service: str, now: RunReport) -> None:
        share = 100 * now.done / now.items
        text = f"{now.done} of {now.items} items, {now.failed} failed"
        if now.waits:
            text += f"; {now.waits}"
        if self._artifact is None:
            key = artifact_key(service, "progress")
            self._artifact = await acreate_progress_artifact(share, key=key, description=text)
        else:
            await aupdate_progress_artifact(self._artifact, share, description=text)
