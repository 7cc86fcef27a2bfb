"""What the shards of a run have learned, in one process, about joining rows in one request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

from tasks.domain.answer import array_path
from tasks.domain.evidence import Evidence
from tasks.domain.joining import Joining, Unproved
from tasks.domain.rows_per_request import AutoRows

IDLE_SECONDS = 0.01
"""How long a file waits for another file's requests to cover its answers before it makes a check of its own."""


class JoinedRows:
    """Whether rows may share a request, how many, and where the response has their answers (``array_path``)."""

    def __init__(self, response: Any) -> None:
        self.array_path = array_path(response)
        self.auto = AutoRows()
        self.joining = Joining(Random())
        self.evidence = Evidence()
        self.waiting = 0
        """Number of files whose rows are all answered and that wait until a check covers them."""
        self.when_waiting: set[Callable[[], None]] = set()
        """Called when a file begins to wait, so that others can be begun instead."""
        self._sending = 0
        self._changed = asyncio.Event()
        self._last_check = asyncio.Lock()

    def began(self) -> None:
        """Count a file whose rows are being sent."""
        self._sending += 1

    def ended(self) -> None:
        """Count a file's rows as sent."""
        self._sending -= 1
        self.change()

    def change(self) -> None:
        """Wake the files and requests that wait for news."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait for :meth:`change`."""
        await self._changed.wait()

    async def covered(self, unproved: Unproved, check: Callable[[], Awaitable[bool]]) -> bool:
        """Wait until the answers of a file are covered; False if its rows have to be sent again.

        ``check`` makes a check that covers them, if no other file's requests do.
        """
        if self.joining.covers(unproved):
            return True
        self.waiting += 1
        try:
            for begin_others in [*self.when_waiting]:
                begin_others()
            return await self._covered(unproved, check)
        finally:
            self.waiting -= 1

    async def _covered(self, unproved: Unproved, check: Callable[[], Awaitable[bool]]) -> bool:
        joining = self.joining
        while not joining.covers(unproved):
            if joining.refused:
                return False
            if self._sending:
                await self.changed()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self.changed()
                continue
            async with self._last_check:  # one check for all waiting files
                if not self._sending and not joining.covers(unproved) and not joining.refused and not await check():
                    return False
        return True
