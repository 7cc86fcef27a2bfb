"""Publish: shard reports become the output manifest and the summary, once every item is accounted for."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks.clients.storage.output_folder import open_output
from tasks.domain.credentials import Credentials
from tasks.domain.paths import parse_address
from tasks.domain.run import Plan, Run, RunResult, ShardDone
from tasks.domain.settings import Settings, read_settings
from tasks.domain.summary import LINES_SHOWN, summary_page
from tasks.engine.earlier import EarlierManifest
from tasks.engine.loop import engine_loop
from tasks.engine.progress import progress_of
from tasks.engine.publishing import first_lines, publish_run
from tasks.prefect_side.blocks import storage_credentials
from tasks.prefect_side.reporting import artifact_key


@task(name="publish", task_run_name="publish", cache_policy=NO_CACHE, persist_result=False)
async def publish(run: Run, planned: Plan, done: Sequence[ShardDone]) -> RunResult:
    """The result of a run whose shards are all done. Raises AccountError if the counts do not agree.

    A run that an earlier try has published keeps its result.
    """
    settings = read_settings()
    progress = progress_of(run.task_id)
    progress.enter("publishing")
    if planned.published is not None:
        progress.manifest, progress.summary = planned.published.manifest, planned.published.summary
        progress.enter("done")
        return planned.published
    published = _publish(run, planned, done, settings, await storage_credentials(settings))
    result, lines = await engine_loop().run(published)
    progress.manifest, progress.summary, progress.resumable = result.manifest, result.summary, result.resumable
    logger = get_run_logger()
    try:
        page = summary_page(run, result, lines)
        await acreate_markdown_artifact(
            key=artifact_key(run.service.name, "summary"), markdown=page, description="Summary"
        )
    except Exception as error:  # everything is published, so the result does not change
        logger.warning("summary artifact not created: %s", type(error).__name__)
    logger.info("published manifest=%s successful=%d failed=%d", result.manifest, result.successful, result.failed)
    progress.enter("done")
    return result


async def _publish(
    run: Run, planned: Plan, done: Sequence[ShardDone], settings: Settings, credentials: dict[str, Credentials]
) -> tuple[RunResult, list[str]]:
    async with open_output(settings, credentials, run.output_address, run.names.scratch) as (storage, output):
        merge = run.failed_of if run.service.merge else None
        earlier = None if merge is None else EarlierManifest(storage, merge)
        result = await publish_run(run, planned, done, settings, output, earlier)
        return result, await first_lines(storage, parse_address(result.manifest), LINES_SHOWN)
