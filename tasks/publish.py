"""Publish: shard reports become the output manifest and the summary, once every item is accounted for."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks.blocks import storage_credentials
from tasks.clients.storage import OutputFolder, Storage
from tasks.domain.credentials import Credentials
from tasks.domain.run import Plan, Run, RunResult, ShardDone
from tasks.engine.loop import engine_loop
from tasks.engine.progress import progress_of
from tasks.engine.publishing import publish_run
from tasks.reporting import artifact_key
from tasks.settings import Settings, read_settings


@task(name="publish", task_run_name="publish", cache_policy=NO_CACHE, persist_result=False)
async def publish(run: Run, planned: Plan, done: Sequence[ShardDone]) -> RunResult:
    """The result of a run whose shards are all done. Raises AccountError if the sums do not agree."""
    settings = read_settings()
    progress = progress_of(run.task_id)
    progress.enter("publishing")
    result = await engine_loop().run(_publish(run, planned, done, settings, await storage_credentials(settings)))
    progress.manifest, progress.summary = result.manifest, result.summary
    logger = get_run_logger()
    try:
        await acreate_markdown_artifact(
            key=artifact_key(run.service.name, "summary"), markdown=_markdown(run, result), description="Summary"
        )
    except Exception as error:  # everything is published, so the run is what it is
        logger.warning("summary artifact not created: %s", type(error).__name__)
    logger.info("published manifest=%s successful=%d failed=%d", result.manifest, result.successful, result.failed)
    progress.enter("done")
    return result


async def _publish(
    run: Run, planned: Plan, done: Sequence[ShardDone], settings: Settings, credentials: dict[str, Credentials]
) -> RunResult:
    storage = Storage(settings, credentials)
    output = OutputFolder(storage, run.output_address, run.names.scratch)
    try:
        return await publish_run(run, planned, done, settings, output)
    finally:
        await storage.close()


def _markdown(run: Run, result: RunResult) -> str:
    rows = [
        ("Items", f"{result.items}"),
        ("SUCCESSFUL", f"{result.successful}"),
        ("FAILED", f"{result.failed}"),
        ("Output manifest", f"`{result.manifest}`"),
        ("Summary", f"`{result.summary}`"),
        ("Model", f"`{run.config.model_type}` {run.model_version or ''}"),
        ("Instances", f"{run.service.instances} x {run.flavor.name}"),
        *((f"Seconds: {phase}", f"{seconds:.1f}") for phase, seconds in result.seconds.items()),
    ]
    lines = [f"# {run.service.name}", "", result.failure, "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    if result.top_causes:
        lines += ["", "## Why items failed", "", "| items | cause |", "| --- | --- |"]
        lines += [f"| {cause['items']} | {_cell(str(cause['cause']))} |" for cause in result.top_causes]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
