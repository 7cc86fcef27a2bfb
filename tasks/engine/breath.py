"""Work that would hold the event loop for long lets others go on in between."""

from __future__ import annotations

import asyncio
import time

HELD_SECONDS = 0.01
"""How long one piece of work holds the loop at most, if it can be cut."""


class Breath:
    """Called again and again by work that computes: lets the loop go on whenever some time has passed."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def __call__(self) -> None:
        """Go on at once, or let others go first."""
        if time.monotonic() - self._since >= HELD_SECONDS:
            await asyncio.sleep(0)
            self._since = time.monotonic()
