"""How a run ends early in one process: the work that it cancels, and what each item that is left is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from tasks.clients import clock
from tasks.domain.run import DeadlinePassed, RunStopped
from tasks.domain.service import BatchService
from tasks.domain.stop import Stop, deadline_passed, threshold_passed
from tasks.engine.progress import progress_of

T = TypeVar("T")

LOOK_SECONDS = 0.2
"""Interval of checks whether the run has to stop."""


class Ending:
    """Whether a run of ``planned_items`` ends early, and why; ``when_stopped`` is called when it is stopped."""

    def __init__(self, service: BatchService, planned_items: int, when_stopped: Callable[[], None]) -> None:
        self.stopped: Stop | None = None
        """Why no further item is sent; None unless the run is stopped."""
        self.halted: Stop | None = None
        """Why requests in flight are also dropped: by hand or the deadline, which may come after another stop."""
        self.failed_items = 0
        self._service = service
        self._planned_items = planned_items
        self._when_stopped = when_stopped
        self._alarm: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._halting = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()

    def set_alarm(self, deadline_at: float) -> None:
        """Halt the run at its deadline."""
        seconds, stop = deadline_at - clock.now(), deadline_passed(self._service.deadline_minutes)
        if seconds <= 0:  # at once: a timer would fire after the first items
            self.halt(stop)
        else:
            self._alarm = asyncio.get_running_loop().call_later(seconds, self.halt, stop)

    def stop_alarm(self) -> None:
        """Forget the deadline."""
        if self._alarm is not None:
            self._alarm.cancel()

    def cancels(self, worker: asyncio.Task[None]) -> None:
        """Cancel a task that processes items, once, when the run is halted; it goes on with the remaining items."""
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    def count_failure(self, by: int = 1) -> None:
        """Count a failed item, or -1 if it is sent again; stops the run if the error threshold is exceeded."""
        self.failed_items += by
        if stop := threshold_passed(self._service.error_threshold, self.failed_items, self._planned_items):
            self.stop(stop)

    def stop(self, stop: Stop) -> None:
        """Send no further request; the remaining items are FAILED, for the reason of the first stop."""
        self.stopped = self.stopped or stop
        self._stopping.set()
        self._when_stopped()

    def halt(self, stop: Stop) -> None:
        """Stop, and drop what is in flight, which is FAILED like the rest."""
        if self.halted is None:
            self.halted = stop
            self.stop(stop)
            self._halting.set()
            for worker in self._workers:
                worker.cancel()

    async def unless_halted(self, work: asyncio.Task[None]) -> None:
        """Wait until ``work``, which is not cancelled, is done or the run is halted. Raises what ``work`` raises."""
        halting = asyncio.ensure_future(self._halting.wait())
        try:
            await asyncio.wait([work, halting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            halting.cancel()
        if self.halted is None:
            work.result()

    async def pause(self, seconds: float) -> None:
        """Wait before a retry; return at once when the run is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    @property
    def not_processed(self) -> str:
        """Message of an item that is no longer sent; empty unless the run is stopped."""
        stop = self.halted if self.halted and self.halted.by_hand else self.stopped
        return stop.item_message if stop else ""


async def unless_stopped(
    work: Coroutine[Any, Any, T], task_id: str, deadline_at: float | None, minutes: float | None, *, while_: str
) -> T:
    """The result of ``work`` before anything is sent; it is cancelled when the run is stopped or its deadline passes.

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
