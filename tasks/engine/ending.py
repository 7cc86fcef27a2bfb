"""Work of a run before anything is sent: cancelled when the run is stopped, whatever it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tasks.clients import clock
from tasks.domain.run import DeadlinePassed, RunStopped
from tasks.domain.stop import deadline_passed
from tasks.engine.progress import progress_of

T = TypeVar("T")

LOOK_SECONDS = 0.2
"""Interval of checks whether the run has to stop."""


async def unless_stopped(
    work: Coroutine[Any, Any, T], task_id: str, deadline_at: float | None, minutes: float | None, *, while_: str
) -> T:
    """The result of ``work``, which is cancelled when the run is stopped or its deadline passes.

    ``while_`` describes the work in the error message. Raises RunStopped, DeadlinePassed, and what ``work`` raises.
    """
    doing = asyncio.ensure_future(work)
    try:
        while True:
            left = LOOK_SECONDS if deadline_at is None else min(LOOK_SECONDS, deadline_at - clock.now())
            await asyncio.wait([doing], timeout=max(0.0, left))
            if doing.done():
                return doing.result()
            if progress_of(task_id).stopped:
                raise RunStopped(f"The run was stopped while {while_}; nothing was sent.")
            if deadline_at is not None and clock.now() >= deadline_at:
                cause = deadline_passed(minutes).cause
                raise DeadlinePassed(f"The run was stopped early, while {while_}, because {cause}; nothing was sent.")
    finally:
        if not doing.done():
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
