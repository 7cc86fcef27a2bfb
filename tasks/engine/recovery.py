"""Waits for a model server that is down or asked for a pause, and finds out when it answers again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tasks.domain.outage import Outage


class Recovery:
    """Follows one outage, from the first refusal until the server answers.

    ``ask`` checks the server's health: an empty text, or what is wrong. ``ask_again`` sends it a request that it
    answered before, and returns whether there is one. ``changed`` is called whenever requests may be sent again or no
    longer. ``over`` is called when the outage has lasted too long, and returns whether to go on with the checks.
    Belongs to one event loop; :meth:`close` when done.
    """

    def __init__(
        self,
        outage: Outage,
        ask: Callable[[], Awaitable[str]],
        ask_again: Callable[[], Awaitable[bool]],
        changed: Callable[[], None],
        over: Callable[[], bool],
    ) -> None:
        self._outage = outage
        self._ask = ask
        self._ask_again = ask_again
        self._changed = changed
        self._over = over
        self._moved = asyncio.Event()
        self.looked = asyncio.Event()
        """Set once the server has been checked."""
        self._task = asyncio.create_task(self._follow())

    @property
    def ended(self) -> bool:
        """Whether the outage is no longer followed."""
        return self._task.done()

    def go_on(self) -> None:
        """Check again now, because a request has returned."""
        self._moved.set()

    async def _follow(self) -> None:
        outage = self._outage
        looks = 0
        try:
            while True:
                now = time.monotonic()
                if now < outage.resume_at:
                    self._changed()
                    await asyncio.sleep(outage.resume_at - now)
                elif not outage.down:
                    return
                else:
                    self._changed()
                    detail = await self._ask()
                    healthy = not detail
                    outage.asked(healthy=healthy, cause=detail)
                    asked_again = outage.down and healthy and await self._ask_again()
                    self.looked.set()
                    if outage.down and healthy and not asked_again:
                        self._moved.clear()
                        outage.give_one()
                        self._changed()
                        await self._moved.wait()
                    if outage.down and outage.passed(time.monotonic()) and not self._over():
                        return
                    if outage.down:
                        self._moved.clear()
                        with suppress(TimeoutError):
                            async with asyncio.timeout(outage.pause(looks, time.monotonic())):
                                await self._moved.wait()
                        looks += 1
        finally:
            self.looked.set()
            outage.rested(time.monotonic())
            self._changed()

    async def close(self) -> None:
        """End the checks."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
