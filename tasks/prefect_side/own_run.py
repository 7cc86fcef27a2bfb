"""The run that this process executes: its flow run, its id, and how long it took to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prefect import runtime
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from tasks.clients import clock
from tasks.engine.progress import Progress

_taken_up: ContextVar[str] = ContextVar("taken_up", default="")
_command_began: list[float] = []


def own_flow_run() -> FlowRun | None:
    """The flow run of the calling code, as it was when it began; None outside a flow run.

    Prefect's ``runtime.deployment`` would ask the server, in another thread, about each run without a deployment.
    """
    context = FlowRunContext.get()
    return None if context is None else context.flow_run


def own_task_id() -> str:
    """The id of the run, which is in the name of everything that it writes.

    That of the current flow run, or of one that began on a Prefect server that has lost it.
    """
    return _taken_up.get() or str(runtime.flow_run.id)


@contextmanager
def taking_up(task_id: str) -> Iterator[None]:
    """For the duration of the block, a called flow resumes the run with this id from its scratch folder alone."""
    before = _taken_up.set(task_id)
    try:
        yield
    finally:
        _taken_up.reset(before)


def begin_command(at: float) -> None:
    """Set when the next run of this command began (seconds since 1970); for commands that execute one run."""
    _command_began[:] = [at]


def note_start(progress: Progress) -> None:
    """Record the start-up time since the command began, or since this try was set to Running.

    Called on the first line of a flow. A later try in the same process has a start of its own.
    """
    now = clock.now()
    own = own_flow_run()
    if _command_began:
        began = _command_began.pop()
    elif own is not None and own.state is not None:
        began = own.state.timestamp.timestamp()
    else:
        began = now
    progress.flow_began_at = now
    progress.start_seconds = max(0.0, now - began)
