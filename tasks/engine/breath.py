"""Lets long computations yield to the event loop."""

from __future__ import annotations

import asyncio
import time

HELD_SECONDS = 0.01
"""Longest time for which divisible work blocks the event loop."""


class Breath:
    """Called repeatedly by a long computation; yields to the event loop whenever some time has passed."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def __call__(self) -> None:
        """Return at once, or yield to the event loop first."""
        if time.monotonic() - self._since >= HELD_SECONDS:
            await asyncio.sleep(0)
            self._since = time.monotonic()
