"""A run that is tried again after it has published: it ends with the same result, and nothing is sent or written."""

from __future__ import annotations

from typing import Any

import orjson

from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.errors import StorageError
from tasks.domain.run import PLAN_NAME, Run, RunResult


async def published_result(run: Run, storage: Storage, output: OutputFolder) -> RunResult | None:
    """The result of a run that has published, from its summary file; None if the run has to go on.

    It has to if it has not published, or was stopped for a transient cause and still has its plan. The first part of
    the output manifest is written last, so if it exists the rest does. Raises StorageError.
    """
    manifest = output.root.child(run.names.manifest(0))
    summary = output.root.child(run.names.summary)
    try:
        if not await storage.is_file(manifest):
            return None
    except ObjectError as error:
        raise StorageError(f"Whether there is {manifest} cannot be found out: {error.cause}") from None
    try:
        result = _result(run, str(summary), orjson.loads(await output.read(run.names.summary)))
        if result.resumable and await storage.is_file(output.scratch.child(PLAN_NAME)):
            return None
    except ObjectError as error:
        cause = error.cause
    except (ValueError, KeyError, TypeError, IndexError):
        cause = "it is not what Thresher has written."
    else:
        return result
    raise StorageError(
        f"This run has published {manifest} already, and is not done again; its result cannot be shown, since "
        f"{summary} cannot be read: {cause}"
    )


def _result(run: Run, summary: str, values: dict[str, Any]) -> RunResult:
    items = values["items"]
    same = {
        name: values[name] for name in ("name", "manifests", "seconds", "top_causes", "warnings", "failure", "stopped")
    }
    return RunResult(
        **same,
        task_id=run.task_id,
        manifest=values["manifests"][0],
        summary=summary,
        items=items["planned"],
        successful=items["successful"],
        failed=items["failed"],
        not_processed=items.get("not_processed", 0),
        resumable=values.get("resumable", False),
    )
