"""The single interface to folders and objects: local paths, s3://, obs:// and share links, with the same operations."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from tasks.clients.storage import local_files
from tasks.clients.storage.failures import Missing, ObjectError
from tasks.clients.storage.local_places import forget_folder
from tasks.clients.storage.object_store import Bucket
from tasks.clients.storage.s3_client import credentials_of
from tasks.domain.credentials import Credentials
from tasks.domain.manifest import LONGEST_LINE
from tasks.domain.paths import Address
from tasks.domain.settings import Settings

if TYPE_CHECKING:
    from tasks.clients.storage.share_links import ShareLinks


class Storage:
    """Reads, lists and writes addresses. Belongs to one event loop; ``close`` when done, or :func:`open_storage`.

    Every operation raises ObjectError (with a cause for the user).
    """

    def __init__(self, settings: Settings, credentials: Mapping[str, Credentials] | None = None) -> None:
        self._settings = settings
        self._credentials = dict(credentials or {})
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._links: ShareLinks | None = None

    @property
    def secrets(self) -> list[str]:
        """The keys that it was given: they must not be shown."""
        return [secret for one in self._credentials.values() for secret in one.secrets]

    def _share_links(self) -> ShareLinks:
        if self._links is None:
            from tasks.clients.storage.share_links import ShareLinks  # a tenth of a second; only share links need it

            self._links = ShareLinks(self._settings.share_link_hosts, self._settings.download_timeout_seconds)
        return self._links

    def bucket(self, address: Address) -> Bucket:
        """The bucket of an s3:// or obs:// address."""
        key = (address.scheme, address.bucket)
        if key not in self._buckets:
            credentials = credentials_of(address.scheme, self._credentials)
            timeout, patience = self._settings.download_timeout_seconds, self._settings.storage_retry_seconds
            self._buckets[key] = Bucket(address.bucket, credentials, timeout, patience)
        return self._buckets[key]

    async def read(self, address: Address, max_bytes: int | None = None, size: int = -1, version: int = 0) -> bytes:
        """All bytes at an address; ``size`` and ``version`` are those of a listing, -1 and 0 if unknown.

        A mismatch is an error (objects are read again first), so that no part is taken for the whole.
        """
        if address.scheme == "local":
            return await local_files.read(address.path, max_bytes, size)
        if address.scheme == "http":
            return await self._share_links().read(address.path, max_bytes)
        return await self.bucket(address).read(address.path, max_bytes, size, version)

    async def stream(self, address: Address) -> AsyncGenerator[bytes]:
        """The bytes at an address in chunks of about one MiB."""
        if address.scheme == "local":
            with local_files.explained():
                for chunk in local_files.chunks(address.path, 1 << 20):
                    yield chunk
        else:
            async with aclosing(self.bucket(address).stream(address.path)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def lines(
        self, address: Address, see: Callable[[bytes], None] | None = None, longest: int = LONGEST_LINE
    ) -> AsyncGenerator[bytes]:
        """The lines of a file or object, without their ends. A line longer than ``longest`` may be truncated.

        ``see`` is called with every chunk that is read, so that a checksum needs no second reading.
        """
        begun = bytearray()  # of a line that continues in the next chunk
        async with aclosing(self.stream(address)) as chunks:
            async for chunk in chunks:
                if see is not None:
                    see(chunk)
                *lines, rest = chunk.split(b"\n")
                if lines and begun:
                    lines[0] = bytes(begun + lines[0][: longest + 1 - len(begun)])
                    begun.clear()
                for line in lines:
                    yield line
                begun += rest[: longest + 1 - len(begun)]
        if begun:
            yield bytes(begun)

    async def is_file(self, address: Address) -> bool:
        """Whether there is a file or object at exactly this address."""
        if address.scheme == "local":
            return os.path.isfile(address.path)
        if not address.path or address.path.endswith("/"):
            return False
        return await self.bucket(address).size(address.path) is not None

    async def is_placeholder(self, address: Address) -> bool:
        """Whether there are objects below this empty object, which some programs create for a folder. False on local
        disks.
        """
        return address.scheme in ("s3", "obs") and await self.bucket(address).has_below(address.path)

    async def size(self, address: Address) -> int:
        """Size in bytes of a file or object. Raises ObjectError if it does not exist."""
        if address.scheme == "local":
            with local_files.explained():
                return os.stat(address.path).st_size
        size = await self.bucket(address).size(address.path)
        if size is None:
            raise Missing("There is no such object.")
        return size

    async def list(self, folder: Address) -> AsyncGenerator[tuple[str, int, int]]:
        """Path relative to ``folder``, size and version of every file below it, in name order (by the whole path).

        The version is 0 for local files.
        """
        if folder.scheme == "local":
            with local_files.explained():
                try:
                    for relative, size in local_files.walk(folder.path):
                        yield relative, size, 0
                except NotADirectoryError:
                    raise ObjectError("It is not a folder.") from None
        else:
            start = len(f"{folder.path.rstrip('/')}/") if folder.path else 0
            async with aclosing(self.bucket(folder).list(folder.path)) as found_keys:
                async for key, size, version in found_keys:
                    yield key[start:], size, version

    async def top(self, folder: Address, *, only_folders: bool = False) -> Sequence[str]:
        """Names directly below a folder; empty if it does not exist. ``only_folders``: without files (and links)."""
        if folder.scheme == "local":
            try:
                with os.scandir(folder.path) as found:
                    return sorted(one.name for one in found if not only_folders or one.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                return []
            except NotADirectoryError:
                raise ObjectError("It is a file, not a folder.") from None
            except OSError as error:
                raise local_files.explain(error) from None
        return await self.bucket(folder).top(folder.path, only_folders=only_folders)

    async def write(self, address: Address, data: bytes) -> None:
        """Write a whole file, visible only once it is complete; the folders above it are made."""
        if address.scheme == "local":
            await local_files.write("/", address.path, data, os.path.dirname(address.path))
        else:
            await self.bucket(address).write(address.path, data)

    async def delete(self, folder: Address) -> None:
        """Remove a folder and everything below it; a missing one is no error."""
        if folder.scheme == "local":
            shutil.rmtree(folder.path, ignore_errors=True)
            return
        bucket = self.bucket(folder)
        keys = [key async for key, _, _ in bucket.list(folder.path)]
        await bucket.delete(keys)

    async def close(self) -> None:
        """Close every connection and every open folder."""
        forget_folder()
        if self._links is not None:
            await self._links.close()
        for bucket in self._buckets.values():
            await bucket.close()


@asynccontextmanager
async def open_storage(
    settings: Settings, credentials: Mapping[str, Credentials], patience_seconds: float = math.inf
) -> AsyncIterator[Storage]:
    """A storage for the duration of the block; transient failures are retried for ``patience_seconds`` at most."""
    patience = min(patience_seconds, settings.storage_retry_seconds)
    storage = Storage(settings.model_copy(update={"storage_retry_seconds": patience}), credentials)
    try:
        yield storage
    finally:
        await storage.close()
