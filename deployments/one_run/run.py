"""One run of a service, now, in this process. Nothing here writes to a terminal."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deployments.one_run.validation import check_service
from tasks.clients import clock
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import open_storage
from tasks.clients.surroundings.prefect_files import check_prefect_settings
from tasks.clients.surroundings.startup import importing
from tasks.clients.surroundings.surroundings import blamed, check_limits
from tasks.domain.errors import Problem, RunError, SpecificationError, ThresherError
from tasks.domain.paths import OutputNames, expand_words, parse_address, redact, scratch_of
from tasks.domain.plain_text import plain_line
from tasks.domain.run import PLAN_NAME, RunFailed, RunResult
from tasks.domain.service import BatchService
from tasks.domain.settings import read_settings
from tasks.domain.specification import require
from tasks.engine import progress
from tasks.engine.loop import LoopThread, engine_loop, on_engine_loop
from tasks.engine.sessions import sessions
from tasks.prefect_side.embedded_server import start_server
from tasks.prefect_side.environment import set_for_run
from tasks.prefect_side.internals import EVENTS_LOGGER, NO_HOME
from tasks.prefect_side.prefect_import import import_prefect
from tasks.prefect_side.stack_access import refused
from tasks.prefect_side.storage_keys import keys_in_blocks, storage_keys

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun


def run_service(fields: dict[str, Any], *, resume: str | None = None) -> RunResult:
    """Run a service once, or resume its run with the id ``resume``, and return the result.

    Uses the configured Prefect server, or else the embedded one. Raises ThresherError. After Ctrl-C raises
    KeyboardInterrupt, once everything is stopped.
    """
    began = clock.now()
    result = carry_out(prepared(fields, resumed=resume is not None), fields, resume, began)
    progress.forget(result.task_id)
    return result


async def run_service_in_async_code(fields: dict[str, Any], *, resume: str | None = None) -> RunResult:
    """Like :func:`run_service`, on the caller's event loop. If it is cancelled, everything is stopped first."""
    began = clock.now()
    service = await asyncio.to_thread(prepared, fields, resumed=resume is not None)
    await asyncio.to_thread(_start_prefect)
    try:
        result = await _run(service, fields, resume, began)
    except asyncio.CancelledError:
        await engine_loop().run(sessions.close_all())
        raise
    progress.forget(result.task_id)
    return result


def prepared(fields: dict[str, Any], *, verbose: bool = False, resumed: bool = False) -> BatchService:
    """The service of these fields, checked, before Prefect is imported. Raises SpecificationError with every problem.

    For a resumed run, or with storage keys in Prefect blocks, only the fields are checked: only the run itself knows
    its earlier results, and only Prefect the keys.
    """
    check_limits()
    check_prefect_settings()
    set_for_run(verbose=verbose)  # before anything imports Prefect
    warnings.filterwarnings("ignore", message=NO_HOME)  # reported in our own words
    if not resumed and not keys_in_blocks(read_settings()):
        return check_service(fields).service
    try:
        return require(fields)
    except SpecificationError:
        check_service(fields)  # like the run itself, also checks the valid fields against model and storage
        raise


def carry_out(service: BatchService, fields: dict[str, Any], resume: str | None, began: float) -> RunResult:
    """Run a service that was :func:`prepared`. ``began``: since when its caller waits (seconds since 1970)."""
    try:
        _start_prefect()
        # In a thread of its own: in the main thread Prefect would take over the signals that stop the caller.
        return LoopThread("thresher-flow").run_blocking(_run(service, fields, resume, began))
    except KeyboardInterrupt:
        engine_loop().run_blocking(sessions.close_all())
        raise KeyboardInterrupt(
            "Stopped before the end: nothing is left running, and there is no complete output manifest. What was "
            f"done so far, if anything, stays below {redact(service.output_path)}."
        ) from None


def _start_prefect() -> None:
    for name in ("prefect", EVENTS_LOGGER):
        logging.getLogger(name).setLevel(os.environ["PREFECT_LOGGING_LEVEL"].upper())
    import_prefect()
    with importing():
        start_server()


@on_engine_loop
async def unfinished_runs(service: BatchService, task_id: str = "") -> list[str]:
    """Ids of the unpublished runs with a plan in a service's output folder (that of ``task_id``).

    Empty if the folder cannot be listed: the run that is about to begin reports that.
    """
    now = datetime.now(UTC)
    with suppress(ThresherError, ObjectError, ValueError):
        settings = read_settings()
        where = expand_words(service.output_path, task_id=task_id, name=service.name, scheduled_time=now)
        folder = parse_address(where)
        async with open_storage(settings, await storage_keys(settings)) as storage:
            found = [one for name in await storage.top(folder) if (one := scratch_of(name))]
            planned = [folder.child(f"{OutputNames(one).scratch}/{PLAN_NAME}") for one in found]
            return [one for one, plan in zip(found, planned, strict=True) if await storage.is_file(plan)]
    return []


async def _resumed(
    client: PrefectClient, run: str, fields: dict[str, Any], service: BatchService
) -> tuple[FlowRun | None, BatchService]:
    """The run to resume and its service; the run is None if only the output folder knows it, not the server.

    Raises SpecificationError if it cannot be resumed.
    """
    from deployments.services.resuming import FIELD, begin_again, check_resumable, where_it_was
    from flows.batch_service import batch_service
    from tasks.prefect_side.api import run_by_id

    where = f"on this Prefect server ({redact(str(client.api_url))}; its data: PREFECT_HOME)"
    try:
        flow_run = await run_by_id(client, FIELD, run, where)
    except SpecificationError:
        if run in await asyncio.to_thread(unfinished_runs, service, run):
            return None, service  # its scratch folder has everything needed
        raise
    if (await client.read_flow(flow_run.flow_id)).name != batch_service.name:
        raise SpecificationError([Problem(FIELD, run, "is a flow run, but not one of a batch service")])
    before = (flow_run.parameters or {}).get("service") or {}
    if flow_run.deployment_id is not None:
        expected = f"is a run of a service: `thresher start {before.get('name')} --resume {run}` goes on with it"
        raise SpecificationError([Problem(FIELD, run, expected)])
    await check_resumable(client, flow_run)
    if "name" not in fields:  # the default would be a new name
        service = require({**fields, "name": before.get("name")})
    now = service.model_dump(mode="json", by_alias=True)
    if problems := where_it_was(before, now):
        raise SpecificationError(problems)
    return await begin_again(client, flow_run, "Resumed by thresher run --resume.", now), service


async def _run(service: BatchService, fields: dict[str, Any], resume: str | None, began: float) -> RunResult:
    # Importing Prefect takes a second: only commands that need it pay for it.
    with importing():
        import httpx
        from prefect.context import AsyncClientContext, SyncClientContext
        from prefect.exceptions import CancelledRun, ObjectNotFound, PrefectHTTPStatusError
        from prefect.flow_engine import run_flow_async
        from prefect.settings import PREFECT_API_URL

        from flows.batch_service import batch_service
        from tasks.prefect_side.own_run import begin_command, taking_up

    if PREFECT_API_URL.value():
        from tasks.prefect_side.server import prefect_server

        async with prefect_server():
            pass  # fails at once if it does not answer; Prefect would retry silently for minutes
    try:
        async with AsyncExitStack() as stack:
            # One client of each kind for the whole run: each costs 30 ms, and connections of its own.
            try:
                stack.enter_context(SyncClientContext.get_or_create())
                client = (await stack.enter_async_context(AsyncClientContext.get_or_create())).client
            except RuntimeError as error:
                where = redact(PREFECT_API_URL.value() or "(embedded)")
                detail = plain_line(redact(str(error)))
                raise RunError(f"The Prefect server {where} cannot be reached: {detail}.{blamed(where)}") from None
            begin_command(began)
            if resume is None:
                result: Any = await batch_service(service)
            else:
                flow_run, service = await _resumed(client, resume, fields, service)
                if flow_run is None:
                    with taking_up(resume):
                        result = await batch_service(service)
                else:
                    result = await run_flow_async(batch_service, flow_run, {"service": service})
            assert isinstance(result, RunResult)
            return result
    except RunFailed as failed:
        return failed.result
    except ObjectNotFound:
        if (published := next((one.result for one in progress.runs().values() if one.result), None)) is not None:
            return published  # the server has lost its database since then; the published output is valid
        begun = "".join(f" `--resume {run}` resumes it from its output folder." for run in list(progress.runs())[-1:])
        raise RunError(f"The Prefect server does not know this run any more: its database was lost.{begun}") from None
    except CancelledRun as stopped:
        raise RunError(str(stopped)) from None
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        where = redact(PREFECT_API_URL.value() or "(embedded)")
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403):
            raise RunError(refused(where, error.response.status_code)) from None
        raise RunError(f"The Prefect server {where} cannot be reached or refused: {type(error).__name__}.") from None
