"""Whether a process reaches the storage of its run, and whether that takes results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tasks.clients.storage.failures import NoSpace, ObjectError, Unreachable
from tasks.clients.storage.output_folder import ROOM_BYTES, OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.paths import Address

REACH_SECONDS = 2.0
"""Interval of checks on a storage that does not respond."""
ROOM_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""Pauses between checks for free space: another process may be filling the disk with a result that will not fit."""


class Reach:
    """The storage of a run as one process sees it.

    The process can be cut off from the storage of ``places``; it reads up to ``most_bytes`` to find out.
    """

    def __init__(self, storage: Storage, output: OutputFolder, places: Sequence[Address], most_bytes: int) -> None:
        self.cut_off = ""
        """Why this process cannot do its part, although others may; empty while it can."""
        self.unwritable = ""
        """Why results can no longer be written. Items without an outcome get none, so that a resumed run does them."""
        self._storage = storage
        self._output = output
        self._places = [(one.scheme, one.bucket) for one in places]
        self._most_bytes = most_bytes
        self._looking_at_output = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None

    def does_not_reach(self, address: Address) -> None:
        """Note that the storage of a file or object does not respond to this process, even after all retries.

        If one of the places is on it, this process is cut off until the storage responds again.
        """
        if not self.cut_off and (address.scheme, address.bucket) in self._places:
            self.cut_off = f"it does not reach {address.scheme}://{address.bucket}."
            self._looking = asyncio.create_task(self._until_reached(address))

    async def _until_reached(self, address: Address) -> None:
        while True:
            await asyncio.sleep(REACH_SECONDS)
            try:
                await self._storage.read(address, self._most_bytes)
            except Unreachable:
                continue
            except ObjectError:
                pass
            self.cut_off = ""
            return

    async def makes_room(self, error: ObjectError, size: int) -> bool:
        """Find out whether a failed write of ``size`` bytes was due to that result, or no result can be written.

        True if the storage was full and no longer is: the write can then be retried.
        """
        async with self._looking_at_output:
            if self.unwritable:
                return False
            if await self._output.takes_more():
                return isinstance(error, NoSpace) and size <= ROOM_BYTES
            for pause in ROOM_PAUSES_SECONDS if isinstance(error, NoSpace) else ():
                await asyncio.sleep(pause)
                if await self._output.takes_more():
                    return True
            self.unwritable = error.cause
            return False

    async def close(self) -> None:
        """Look no longer whether the storage responds again."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
