"""What the shards of a run have found out, in one process, about several rows in one request."""

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
"""A file waits that long for another one's requests to cover its answers; then it has them covered itself."""


class JoinedRows:
    """Whether rows may go into one request, how many, and where the answer has theirs (``array_path``)."""

    def __init__(self, response: Any) -> None:
        self.array_path = array_path(response)
        self.auto = AutoRows()
        self.joining = Joining(Random())
        self.evidence = Evidence()
        self.waiting = 0
        """Files whose rows are all answered, and that wait until a check covers them."""
        self.when_waiting: set[Callable[[], None]] = set()
        """Called when a file begins to wait: others may be begun instead."""
        self._sending = 0
        self._changed = asyncio.Event()
        self._last_check = asyncio.Lock()

    def began(self) -> None:
        """A file's rows are being sent from now on."""
        self._sending += 1

    def ended(self) -> None:
        """They are not any more."""
        self._sending -= 1
        self.change()

    def change(self) -> None:
        """Something is known now that was not: the files and requests that wait for it look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait for :meth:`change`."""
        await self._changed.wait()

    async def covered(self, unproved: Unproved, check: Callable[[], Awaitable[bool]]) -> bool:
        """Wait until the answers of a file are covered; False if its rows are to be sent again.

        ``check`` makes a check that covers them, for when no other file's requests do.
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
                await asyncio.wait_for(self.changed(), IDLE_SECONDS)
                continue
            async with self._last_check:  # one for all that wait
                if not self._sending and not joining.covers(unproved) and not joining.refused and not await check():
                    return False
        return True
