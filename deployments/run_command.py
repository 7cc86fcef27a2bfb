"""``thresher run``: one run of a service, now, in this process."""

from __future__ import annotations

import logging
import os
from typing import Any

from rich.console import Console

from deployments.live import LiveProgress
from deployments.stopping import ignore_signals
from deployments.validate_command import validate_service
from tasks.domain.errors import RunError, SpecificationError
from tasks.domain.paths import redact
from tasks.domain.run import RunFailed, RunResult
from tasks.domain.service import BatchService, require
from tasks.embedded_server import start_server
from tasks.engine import progress
from tasks.engine.loop import LoopThread, engine_loop
from tasks.engine.session import sessions


def run_service(fields: dict[str, Any], talk: Console, *, verbose: bool) -> RunResult:
    """Run a service once and return what came of it.

    Runs on the embedded Prefect server if no server is configured, else against that. Raises ThresherError, and
    KeyboardInterrupt once everything is stopped, for Ctrl-C and for SIGTERM.
    """
    service = _require(fields)
    _prefect_environment(verbose)
    with LiveProgress(talk):
        try:
            for name in ("prefect", "EventsWorker"):
                logging.getLogger(name).setLevel(os.environ["PREFECT_LOGGING_LEVEL"].upper())
            start_server()
            # In a thread of its own: in the main thread Prefect would take over the signals that stop the command.
            result = LoopThread("thresher-flow").run_blocking(_run(service))
        except KeyboardInterrupt:
            _stop_everything()
            raise KeyboardInterrupt(
                "Stopped before the end: nothing is left running, and there is no complete output manifest. What was "
                f"done so far, if anything, stays below {redact(service.output_path)}."
            ) from None
    progress.forget(result.task_id)
    return result


def _require(fields: dict[str, Any]) -> BatchService:
    """The service of these fields. Raises SpecificationError with every problem, also what only storage can tell."""
    try:
        return require(fields)
    except SpecificationError:
        validate_service(fields)  # the run itself would check the fields that are right against model and storage
        raise


def _stop_everything() -> None:
    ignore_signals()
    engine_loop().run_blocking(sessions.close_all())


async def _run(service: BatchService) -> RunResult:
    # Importing Prefect takes a second: only those commands pay it that need it.
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import CancelledRun, PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL

    from flows.batch_service import batch_service

    try:
        async with get_client() as client:
            try:
                await client.raise_for_api_version_mismatch()
            except RuntimeError as error:
                raise RunError(f"The Prefect server is of no use: {redact(str(error))}") from None
        result: RunResult = await batch_service(service)
        return result
    except RunFailed as failed:
        return failed.result
    except CancelledRun as stopped:
        raise RunError(str(stopped)) from None
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        where = redact(PREFECT_API_URL.value() or "(embedded)")
        raise RunError(f"The Prefect server {where} cannot be reached or refused: {type(error).__name__}.") from None


def _prefect_environment(verbose: bool) -> None:
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "ERROR" if verbose else "CRITICAL")


def exit_code(result: RunResult) -> int:
    """0 if every item succeeded, else 1."""
    return 0 if not result.failure and not result.failed else 1


def talk_of(result: RunResult, talk: Console) -> None:
    """Say on standard error what came of a run."""
    for warning in result.warnings:
        talk.print(f"warning: {warning}", highlight=False, soft_wrap=True, markup=False)
    counts = f"{result.successful:,} of {result.items:,} items SUCCESSFUL, {result.failed:,} FAILED"
    talk.print(f"{result.failure or 'Completed.'} {counts}.", highlight=False, soft_wrap=True, markup=False)
    for cause in result.top_causes:
        talk.print(f"  {cause['items']:>8,} x {cause['cause']}", highlight=False, soft_wrap=True, markup=False)
