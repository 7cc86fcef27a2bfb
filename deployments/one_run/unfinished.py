"""Unfinished runs, found by their files in an output folder."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import open_storage
from tasks.domain.errors import ThresherError
from tasks.domain.paths import OutputNames, expand_words, parse_address, scratch_of
from tasks.domain.run import PLAN_NAME
from tasks.domain.service import BatchService
from tasks.domain.settings import read_settings
from tasks.engine.loop import engine_loop
from tasks.prefect_side.storage_keys import storage_keys


def unfinished_runs(service: BatchService, task_id: str = "") -> list[str]:
    """Ids of the unpublished runs with a plan in a service's output folder (that of ``task_id``).

    Empty if the folder cannot be listed: the run that is about to begin reports that.
    """
    with suppress(ThresherError, ObjectError, ValueError):
        return engine_loop().run_blocking(_unfinished(service, task_id))
    return []


async def _unfinished(service: BatchService, task_id: str) -> list[str]:
    settings = read_settings()
    now = datetime.now(UTC)
    folder = parse_address(expand_words(service.output_path, task_id=task_id, name=service.name, scheduled_time=now))
    async with open_storage(settings, await storage_keys(settings)) as storage:
        found = [one for name in await storage.top(folder) if (one := scratch_of(name))]
        planned = [folder.child(f"{OutputNames(one).scratch}/{PLAN_NAME}") for one in found]
        return [one for one, plan in zip(found, planned, strict=True) if await storage.is_file(plan)]
