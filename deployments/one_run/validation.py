"""``thresher validate``: everything except inference."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from deployments.templates.known_pools import pools_to_deploy_in, pools_to_run_in
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import open_storage
from tasks.domain.credentials import Credentials
from tasks.domain.errors import Problem
from tasks.domain.item import Item
from tasks.domain.paths import redact_source
from tasks.domain.plain_text import plain_lines
from tasks.domain.pool import Pool
from tasks.domain.refused_items import REASONS, Count
from tasks.domain.request import Body, body_text
from tasks.domain.run import Run
from tasks.domain.settings import Settings, read_settings
from tasks.engine.checking import check
from tasks.engine.loop import on_engine_loop
from tasks.engine.sampling import Preview, look_at_input, refuse_hopeless
from tasks.prefect_side.storage_keys import storage_keys

PATIENCE_SECONDS = 2.0
"""The longest that transient storage errors are retried when items are examined."""


@on_engine_loop
async def validate_service(fields: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """A preview of a run as plain JSON values, and the problems if no item could be sent. Creates nothing.

    Raises SpecificationError with every problem if the specification is refused.
    """
    settings = read_settings()
    pools, warnings = await pools_to_deploy_in(fields, settings)
    keys = await storage_keys(settings)
    run = await checked_run(fields, settings, keys, pools)
    async with open_storage(settings, keys, PATIENCE_SECONDS) as storage:
        preview = await look_at_input(run, settings, storage)
    preview.warnings += warnings
    return _as_json(run, preview), preview.problems


@on_engine_loop
async def check_service(fields: dict[str, Any]) -> Run:
    """The run, checked in a fraction of a second without reading its items. Creates nothing.

    Raises SpecificationError with every problem.
    """
    settings = read_settings()
    pools, keys = await pools_to_run_in(fields, settings), await storage_keys(settings)
    run = await checked_run(fields, settings, keys, pools)
    if run.failed_of is None:
        async with open_storage(settings, keys, PATIENCE_SECONDS) as storage:
            with suppress(ObjectError):  # the run itself reports it, after retrying the storage
                await refuse_hopeless(run, settings, storage)
    return run


async def checked_run(
    fields: dict[str, Any], settings: Settings, keys: dict[str, Credentials], pools: Mapping[str, Pool] | None
) -> Run:
    """The checked run. Creates nothing. Raises SpecificationError with every problem."""
    now = datetime.now(UTC)
    task_id = str(uuid.uuid4())
    return await check(fields, task_id=task_id, scheduled_time=now, settings=settings, credentials=keys, pools=pools)


def _as_json(run: Run, preview: Preview) -> dict[str, Any]:
    example = preview.example
    return {
        "name": run.service.name,
        "model": {"version": run.model_version, "type": run.config.model_type, "serving": run.serving},
        "flavor": run.flavor.name,
        "instances": run.instances,
        "plan": {
            "items": preview.items, "bytes": preview.bytes, "items_of_unknown_size": preview.unknown_sizes,
            "rows": preview.rows, "refused_already": preview.failed_lines, "shards": preview.shards,
        },
        "refused": [count._asdict() for count in preview.refused],
        "looked_at": preview.looked_at,
        "made_package": _made_package(run),
        "mapping": run.rule,
        "request": None if example is None else _request(run, *example),
        "no_request": preview.no_example,
        "output_manifest": str(run.output_address.child(run.names.manifest(0))).replace(run.task_id, "{task_id}"),
        "warnings": [*run.warnings, *preview.warnings],
        "problems": [str(problem) for problem in preview.problems],
    }  # fmt: skip


def _made_package(run: Run) -> dict[str, Any] | None:
    """The package that a bare model was made into: its config.json, and where it is."""
    if run.bare_model is None:
        return None
    config = run.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {"of": run.bare_model, "folder": run.package, "config": config}


def _request(run: Run, item: Item, body: Body) -> dict[str, Any]:
    return {
        "item": redact_source(item.source),
        "method": run.api.method,
        "path": run.api.url,
        "content_type": body.content_type,
        "body": body_text(body),
    }


def preview_text(found: dict[str, Any]) -> str:
    """Plan, mapping and first request, in human-readable form."""
    plan, model = found["plan"], found["model"]
    lines = [
        f"service   {found['name']}",
        f"model     {model['type']}{' ' + model['version'] if model['version'] else ''}, served by: {model['serving']}",
        f"instances {found['instances']} x {found['flavor']}",
        f"plan      {plan['items']:,} items, {plan['bytes']:,} bytes, {plan['shards']:,} shards",
    ]
    if plan["rows"] is not None:
        lines.append(f"          {plan['rows']:,} rows")
    if plan["items_of_unknown_size"]:
        lines.append(f"          {plan['items_of_unknown_size']:,} items of unknown size")
    for number, count in enumerate(found["refused"]):
        shown = Count(**count)
        lines.append(f"{'' if number else 'refused':10}{shown.share} ({REASONS[shown.reason]})")
    lines.append(f"manifest  {found['output_manifest']}")
    made = found["made_package"]
    if made is not None:
        lines += ["", f"package made of {made['of']}", made["folder"]]
        lines.append(json.dumps(made["config"], ensure_ascii=False, indent=2))
    if found["mapping"] is not None:
        lines += ["", "mapping", json.dumps(found["mapping"], ensure_ascii=False, indent=2)]
    request = found["request"]
    if request is not None:
        lines += [
            "",
            f"first request (of {request['item']})",
            f"{request['method']} {request['path']}",
            f"Content-Type: {request['content_type']}",
            "",
            request["body"].replace("\r\n", "\n"),
        ]
    else:
        lines += ["", f"first request: none, because {found['no_request']}"]
    return "\n".join(one for line in lines for one in plain_lines(line)) + "\n"
