"""Plan: input to items (mapping), items to shards. The plan is stored; the other tasks only refer to it."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.clients.storage.output_folder import open_output
from tasks.domain.credentials import Credentials
from tasks.domain.errors import StorageError
from tasks.domain.run import Plan, Run
from tasks.domain.seal import digest
from tasks.domain.settings import Settings, read_settings
from tasks.engine import stored_plan as _plans
from tasks.engine.ending import unless_stopped
from tasks.engine.loop import engine_loop
from tasks.engine.planning import make_plan
from tasks.engine.progress import progress_of
from tasks.prefect_side.blocks import storage_credentials


@task(name="plan", task_run_name="plan", cache_policy=NO_CACHE, persist_result=False)
async def plan(run: Run) -> Plan:
    """The shards of a run, by reference. A resumed run keeps its plan."""
    settings = read_settings()
    progress = progress_of(run.task_id)
    progress.enter("planning")
    planning = _plan(run, settings, await storage_credentials(settings))
    minutes = run.service.deadline_minutes
    made = await engine_loop().run(
        unless_stopped(planning, run.task_id, run.deadline_at, minutes, while_="its input was being listed")
    )
    progress.items = made.items
    logger = get_run_logger()
    if made.published is not None:
        progress.done, progress.failed = made.items, made.published.failed
        logger.info("published already manifest=%s", made.published.manifest)
        return made
    for warning in made.warnings:
        logger.warning(warning)
    logger.info("planned items=%d bytes=%d shards=%d", made.items, made.bytes, len(made.shards))
    return made


async def _plan(run: Run, settings: Settings, credentials: dict[str, Credentials]) -> Plan:
    async with open_output(settings, credentials, run.output_address, run.names.scratch) as (storage, output):
        return await make_plan(run, settings, storage, output)


def digest_of(planned: Plan) -> str:
    """The digest by which :func:`stored_plan` recognizes this plan."""
    return digest(planned.model_dump_json().encode())


async def stored_plan(run: Run, wanted: str) -> Plan:
    """The stored plan of a run, checked by its digest: a plan may be too large to be passed on.

    Raises StorageError if it cannot be read, or is another one.
    """
    settings = read_settings()
    found = await engine_loop().run(_stored_plan(run, settings, await storage_credentials(settings)))
    if found is None or digest_of(found) != wanted:
        there = "There is no plan" if found is None else "The plan was changed"
        raise StorageError(f"{there} in {run.output_address.child(run.names.scratch)}.")
    return found


async def _stored_plan(run: Run, settings: Settings, credentials: dict[str, Credentials]) -> Plan | None:
    async with open_output(settings, credentials, run.output_address, run.names.scratch) as (_, output):
        return await _plans.stored_plan(run, output)
