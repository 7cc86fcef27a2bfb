"""How long a run took to start: the time before the first line of its flow."""

from __future__ import annotations

from tasks.clients import clock
from tasks.engine.progress import Progress
from tasks.prefect_side.as_deployed import own_flow_run

_command_began: list[float] = []


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
