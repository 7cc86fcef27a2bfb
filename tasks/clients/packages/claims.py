"""Claims on versions of a model store: while one process registers or deletes a version, no other does.

On this machine's disks a claim is a lock on a file, which the kernel releases however its holder ends. In object
storage it is an object with the holder's mark, written again every few seconds: an older one was left by a process that
was killed. Two may write it at the same moment; the one whose mark stays has the claim, and the other learns it at the
latest when it asks :meth:`Claim.check`, which it does before it changes the state of the version.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tasks.clients.processes.file_lock import locked
from tasks.clients.storage.failures import Missing, ObjectError
from tasks.clients.storage.storage import Storage
from tasks.domain.errors import Problem, SpecificationError, StorageError
from tasks.domain.paths import Address
from tasks.domain.unexpected import unusable_folder

CLAIMS = ".claims"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0


class Claim:
    """A claim that this process holds."""

    def __init__(self, storage: Storage, address: Address | None, refused: SpecificationError) -> None:
        self._storage = storage
        self._address = address
        self._refused = refused
        self._mark = uuid.uuid4().hex

    async def check(self) -> None:
        """Raises SpecificationError if another process has taken the claim at the same moment."""
        if self._address is not None and await self._mark_there() not in (self._mark, None):
            raise self._refused

    async def take(self) -> None:
        """Write the mark. Raises SpecificationError if another process holds the claim."""
        assert self._address is not None
        if await self._mark_there() is not None:
            raise self._refused
        await self._write()
        await self.check()

    async def keep(self) -> None:
        """Write the mark again and again, until it is cancelled or another has it."""
        with suppress(SpecificationError):
            while True:
                await asyncio.sleep(BEAT_SECONDS)
                with suppress(ObjectError):
                    await self.check()
                    await self._write()

    async def release(self) -> None:
        """Remove the mark."""
        assert self._address is not None
        with suppress(ObjectError):
            if await self._mark_there() == self._mark:
                await self._storage.bucket(self._address).delete([self._address.path])

    async def _write(self) -> None:
        assert self._address is not None
        await self._storage.write(self._address, json.dumps({"mark": self._mark, "at": time.time()}).encode())

    async def _mark_there(self) -> str | None:
        """The mark of the process that holds the claim; None if it is free, or its holder was killed."""
        assert self._address is not None
        try:
            there = json.loads(await self._storage.read(self._address))
            return str(there["mark"]) if abs(time.time() - float(there["at"])) < STALE_SECONDS else None
        except (Missing, ValueError, KeyError, TypeError):
            return None


@asynccontextmanager
async def claimed(storage: Storage, root: Address, source: str, model: str, version: str) -> AsyncIterator[Claim]:
    """Hold the claim on a version in the block.

    Raises SpecificationError if another process holds it, StorageError if the store cannot be written.
    """
    expected = f"{model} {version} is being registered or deleted by another process at this moment"
    refused = SpecificationError([Problem("--model-version", version, expected)])
    address = root.child(f"{CLAIMS}/{source}/{model}/{version}")
    if root.scheme == "local":
        path = Path(f"{address.path}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = locked(path, os.O_RDWR, 0o644)
        except OSError as error:
            raise unusable_folder("THRESHER_MODEL_STORE", str(root), error) from None
        if handle is None:
            raise refused
        try:
            yield Claim(storage, None, refused)
        finally:
            os.close(handle)
        return
    claim = Claim(storage, address, refused)
    try:
        try:
            await claim.take()
        except Missing:
            await storage.bucket(address).make()
            await claim.take()
    except ObjectError as error:
        raise StorageError(f"The model store {root} cannot be written: {error.cause}") from None
    beat = asyncio.create_task(claim.keep())
    try:
        yield claim
    finally:
        beat.cancel()
        with suppress(asyncio.CancelledError):
            await beat
        await claim.release()
