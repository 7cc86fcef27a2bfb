"""``thresher run``: one run of a service, now, in this process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Any

from rich.console import Console

from deployments.live import LiveProgress
from tasks.domain.errors import ThresherError
from tasks.domain.run import RunFailed, RunResult
from tasks.domain.service import require
from tasks.engine import progress


def run_service(fields: dict[str, Any], talk: Console, *, verbose: bool) -> RunResult:
    """Run a service once and return what came of it.

    Runs on the ephemeral Prefect server if no server is configured, else against that. Raises ThresherError.
    """
    service = require(fields)
    _prefect_environment(verbose)
    signal.signal(signal.SIGTERM, _interrupt)
    with LiveProgress(talk):
        try:
            result = asyncio.run(_run(service))
        except BaseException as error:
            # Prefect turns SIGTERM into an exception of its own while a flow runs.
            if type(error).__name__ == "TerminationSignal":
                raise KeyboardInterrupt from None
            raise
    progress.forget(result.task_id)
    return result


async def _run(service: Any) -> RunResult:
    # Importing Prefect takes a second: only those commands pay it that need it.
    from prefect.client.orchestration import get_client

    from flows.batch_service import batch_service
    from tasks.clients.lifeline import adopt_children

    logging.getLogger("prefect").setLevel(os.environ["PREFECT_LOGGING_LEVEL"])
    async with get_client():
        # The ephemeral server, if there is one, is this process's child now; it must not outlive it.
        guard = adopt_children()
    try:
        result: RunResult = await batch_service(service)
        return result
    except RunFailed as failed:
        return failed.result
    finally:
        if guard is not None and guard.stdin is not None:
            _release(guard)


def _release(guard: Any) -> None:
    """Prefect stops its own server at exit; the guard need not: it only steps in when this process is killed."""
    import atexit

    def end() -> None:
        guard.stdin.close()
        guard.wait()

    # Called after Prefect's own handler, which was registered later than... its server start.
    atexit.register(end)


def _prefect_environment(verbose: bool) -> None:
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def exit_code(result: RunResult) -> int:
    """0 if every item succeeded, else 1."""
    return 0 if not result.failure and not result.failed else 1


def talk_of(result: RunResult, talk: Console) -> None:
    """Say on standard error what came of a run."""
    counts = f"{result.successful:,} of {result.items:,} items SUCCESSFUL, {result.failed:,} FAILED"
    talk.print(f"{result.failure or 'Completed.'} {counts}.", highlight=False, soft_wrap=True)
    for cause in result.top_causes:
        talk.print(f"  {cause['items']:>8,} x {cause['cause']}", highlight=False, soft_wrap=True, markup=False)


def fail(error: ThresherError, talk: Console) -> None:
    """Say an expected failure."""
    talk.print(
        str(error), style="bold red" if talk.is_terminal else None, highlight=False, soft_wrap=True, markup=False
    )
    sys.stderr.flush()
