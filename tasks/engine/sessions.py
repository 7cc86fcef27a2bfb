"""The sessions of this process, by task id."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tasks.domain.stop import BY_HAND
from tasks.engine.progress import progress_of
from tasks.engine.session import Session


class Sessions:
    """The sessions of this process, by task id. Lives on the engine's event loop."""

    def __init__(self) -> None:
        self._held: dict[str, Session] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._ended: set[str] = set()
        self._opening = asyncio.Lock()
        self._opened = asyncio.Condition()

    async def begin(self, task_id: str) -> None:
        """Allow a run to open a session again after it has ended."""
        self._ended.discard(task_id)

    async def open(self, task_id: str, make: Callable[[], Awaitable[Session]]) -> Session:
        """The session of a run, created on first use.

        Raises CancelledError once the run has ended: a session opened then would never be closed. Shards that still
        wait for their turn get here while the session of their run is being closed.
        """
        async with self._opening:
            if task_id in self._ended:
                raise asyncio.CancelledError
            if task_id not in self._held:
                session = await make()
                if task_id in self._ended:
                    await session.close()
                    raise asyncio.CancelledError
                self._held[task_id] = session
                async with self._opened:
                    self._opened.notify_all()
                if (stop := progress_of(task_id).stopped) is not None:
                    session.halt(stop)
            return self._held[task_id]

    async def opened(self, task_id: str) -> Session:
        """The session of a run; waits until it is opened. Raises CancelledError once the run has ended."""
        async with self._opened:
            await self._opened.wait_for(lambda: task_id in self._held or task_id in self._ended)
        if task_id not in self._held:
            raise asyncio.CancelledError
        return self._held[task_id]

    def held(self, task_id: str) -> Session | None:
        """The session of a run, None unless it is open."""
        return self._held.get(task_id)

    def others(self, task_id: str) -> bool:
        """Whether a session of another run is open or being closed."""
        return any(other != task_id for other in (*self._held, *self._closing))

    async def halt(self, task_id: str) -> None:
        """Stop a run by hand; its shards end soon and report the remaining items as stopped."""
        progress_of(task_id).stopped = BY_HAND
        if (session := self._held.get(task_id)) is not None:
            session.halt(BY_HAND)

    async def close(self, task_id: str) -> None:
        """Close the session of a run, if there is one, and let no other be opened.

        Closing goes on in the background if the caller is cancelled: a second Ctrl-C must not leave anything running.
        """
        self._ended.add(task_id)
        session = self._held.pop(task_id, None)
        async with self._opened:
            self._opened.notify_all()
        if session is not None:
            closing = self._closing[task_id] = asyncio.create_task(session.close())
            closing.add_done_callback(lambda _: self._closing.pop(task_id, None))
        if task_id in self._closing:
            await asyncio.shield(self._closing[task_id])

    async def close_all(self) -> None:
        """Close every session of this process; returns when all are closed."""
        for task_id in [*self._held, *self._closing]:
            await self.close(task_id)


sessions = Sessions()
