"""Keeping processes running: what ends by itself is started again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

SOON_SECONDS = 60.0
"""A life shorter than this makes the pause before the next one grow."""


class Keepers:
    """Runs each of ``lives``, from its start to its end, again and again until :meth:`close`.

    Pauses in between grow from ``first_seconds`` to ``longest_seconds``.
    """

    def __init__(
        self, lives: Sequence[Callable[[], Awaitable[None]]], first_seconds: float, longest_seconds: float
    ) -> None:
        self._pauses = first_seconds, longest_seconds
        self._keeping = [asyncio.create_task(self._keep(life)) for life in lives]

    async def _keep(self, life: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        first, longest = self._pauses
        pause = first
        while True:
            started = loop.time()
            await life()
            pause = min(longest, 2 * pause) if loop.time() - started < SOON_SECONDS else first
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """End them all."""
        for keeping in self._keeping:
            keeping.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
