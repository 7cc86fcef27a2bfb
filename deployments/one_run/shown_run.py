"""``thresher run``: one run with its progress on a terminal, and with what to do after an early end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from deployments.one_run.run import carry_out, prepared, unfinished_runs
from deployments.terminal.live import live_progress
from deployments.terminal.output import say
from tasks.clients.processes.process_identity import own_start
from tasks.domain.paths import redact
from tasks.domain.plain_text import plain_line
from tasks.domain.run import RunResult
from tasks.domain.service import BatchService
from tasks.engine import progress


def show_run(
    fields: dict[str, Any], *, verbose: bool, resume: str | None = None, command: Sequence[str] = ()
) -> RunResult:
    """Run a service once, or resume its run with the id ``resume``, and return the result.

    ``command`` is the call without ``--resume``, for the message that shows how to resume. Raises ThresherError. After
    Ctrl-C or SIGTERM raises KeyboardInterrupt, once everything is stopped.
    """
    service = prepared(fields, verbose=verbose, resumed=resume is not None)
    if command and resume is None:
        _tell_unfinished(service, command)
    with live_progress():
        try:
            result = carry_out(service, fields, resume, own_start())
        except KeyboardInterrupt as stopped:
            raise KeyboardInterrupt(f"{stopped}{_how_to_resume(command)}") from None
    hint = _how_to_resume(command) if result.resumable else ""
    progress.forget(result.task_id)
    return result.model_copy(update={"failure": f"{result.failure}{hint}"}) if hint else result


def _tell_unfinished(service: BatchService, command: Sequence[str]) -> None:
    for task_id in unfinished_runs(service):
        detail = (
            f"warning: {redact(service.output_path)} holds what run {task_id} has done, which is not all. Unless it "
            f"is running now, `{shlex.join([*command, '--resume', task_id])}` goes on with it, or, if it is a run of a "
            f"service, `thresher start NAME --resume {task_id}`."
        )
        say(detail)


def _how_to_resume(command: Sequence[str]) -> str:
    runs = list(progress.runs())
    if not runs or not command:
        return ""
    return f" It was run {runs[-1]}: `{shlex.join([*command, '--resume', runs[-1]])}` goes on with it."


def show_result(result: RunResult) -> None:
    """Print the outcome of a run on standard error."""
    for warning in result.warnings:
        say(f"warning: {warning}")
    say(result.after_failure(f"{result.counts}.") if result.failure else f"Completed. {result.counts}.")
    for cause in result.top_causes:
        which = f" ({plain_line(str(cause['item']))})" if cause.get("item") else ""
        say(f"  {cause['items']:>8,} x {plain_line(str(cause['cause']))}{which}")
