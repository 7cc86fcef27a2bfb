"""Writers of large files and objects, piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tasks.clients.storage.object_store import Bucket


class LocalWriter:
    """Writes to a local file."""

    def __init__(self, file: Any) -> None:
        self._file = file

    async def write(self, data: bytes) -> None:
        """Write some bytes."""
        self._file.write(data)


class _GivenUp(Exception):
    """Ends an upload that will not be completed."""


class PartWriter:
    """Passes bytes to an upload that runs concurrently; a few MiB wait in between."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._queue: asyncio.Queue[bytes | _GivenUp | None] = asyncio.Queue(maxsize=2)
        self._upload = asyncio.create_task(bucket.write_stream(key, self._chunks()))

    async def _chunks(self) -> AsyncIterator[bytes]:
        while (chunk := await self._queue.get()) is not None:
            if isinstance(chunk, _GivenUp):
                raise chunk
            yield chunk

    async def _put(self, chunk: bytes | _GivenUp | None) -> None:
        put = asyncio.ensure_future(self._queue.put(chunk))
        await asyncio.wait({put, self._upload}, return_when=asyncio.FIRST_COMPLETED)
        put.cancel()  # without effect if it is done

    async def write(self, data: bytes) -> None:
        """Pass on some bytes. Raises ObjectError if the upload has failed."""
        await self._put(data)
        if self._upload.done():
            await self._upload

    async def close(self) -> None:
        """Complete the upload."""
        await self._put(None)
        await self._upload

    async def give_up(self) -> None:
        """End the upload without creating an object."""
        await self._put(_GivenUp())
        await asyncio.gather(self._upload, return_exceptions=True)
