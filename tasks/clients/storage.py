"""The one door to folders and objects: local paths, s3://, obs:// and share links behind the same few verbs."""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from tasks.clients import local_files
from tasks.clients.durable import FileSystemSync, sync_folder
from tasks.clients.failures import ObjectError
from tasks.clients.local_places import forget_folder
from tasks.clients.object_store import Bucket, is_odd
from tasks.clients.part_writers import LocalWriter, PartWriter
from tasks.clients.temporary_names import open_new, unique_name
from tasks.domain.credentials import Credentials, from_environment
from tasks.domain.manifest import LONGEST_LINE
from tasks.domain.paths import Address
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.clients.share_links import ShareLinks

ROOM_BYTES = 64 << 10
"""A storage that does not take a file of so many bytes takes no results."""
PAGE_FILES = 5_000


class Storage:
    """Reads, lists and writes addresses. Belongs to one event loop; ``close`` when done.

    Every verb raises ObjectError (with a cause for the user), reading also TooLarge.
    """

    def __init__(self, settings: Settings, credentials: Mapping[str, Credentials] | None = None) -> None:
        self._settings = settings
        self._credentials = dict(credentials or {})
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._links: ShareLinks | None = None

    def _share_links(self) -> ShareLinks:
        if self._links is None:
            from tasks.clients.share_links import ShareLinks  # a tenth of a second, and only share links need it

            self._links = ShareLinks(self._settings.share_link_hosts, self._settings.download_timeout_seconds)
        return self._links

    def bucket(self, address: Address) -> Bucket:
        """The bucket that an s3:// or obs:// address lies in."""
        key = (address.scheme, address.bucket)
        if key not in self._buckets:
            credentials = self._credentials.get(address.scheme) or from_environment(address.scheme, os.environ)
            timeout, patience = self._settings.download_timeout_seconds, self._settings.storage_retry_seconds
            self._buckets[key] = Bucket(
                address.bucket, credentials, timeout, patience, self._settings.sorted_storage_hosts
            )
        return self._buckets[key]

    async def read(self, address: Address, max_bytes: int | None = None, size: int = -1, version: int = 0) -> bytes:
        """All bytes at an address; ``size`` and ``version`` are what a listing said of it, -1 and 0 if nothing did.

        Others are an error (objects are read again first): nobody gets a half for the whole.
        """
        if address.scheme == "local":
            return await local_files.read(address.path, max_bytes, size)
        if address.scheme == "http":
            return await self._share_links().read(address.path, max_bytes)
        return await self.bucket(address).read(address.path, max_bytes, size, version)

    async def stream(self, address: Address) -> AsyncGenerator[bytes]:
        """The bytes at an address in chunks of about one MiB."""
        if address.scheme == "local":
            try:
                for chunk in local_files.chunks(address.path, 1 << 20):
                    yield chunk
            except OSError as error:
                raise local_files.explain(error) from None
        else:
            async with aclosing(self.bucket(address).stream(address.path)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def lines(
        self, address: Address, see: Callable[[bytes], None] | None = None, longest: int = LONGEST_LINE
    ) -> AsyncGenerator[bytes]:
        """The lines of a file or object, without their ends. Of one that is longer than ``longest``, its beginning.

        ``see`` is shown every byte that was read, chunk by chunk: whoever digests a file needs no second reading.
        """
        begun = bytearray()  # of a line that goes on in the next chunk
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
        """Whether a file or object is at this very address."""
        if address.scheme == "local":
            return os.path.isfile(address.path)
        if not address.path or address.path.endswith("/"):
            return False
        return await self.bucket(address).size(address.path) is not None

    async def size(self, address: Address) -> int:
        """Bytes of a file or object. Raises ObjectError if there is none."""
        if address.scheme == "local":
            try:
                return os.stat(address.path).st_size
            except OSError as error:
                raise local_files.explain(error) from None
        size = await self.bucket(address).size(address.path)
        if size is None:
            raise ObjectError("There is no such object.", missing=True)
        return size

    async def list(self, folder: Address) -> AsyncGenerator[tuple[str, int, int]]:
        """Path relative to ``folder``, size and version of every file below it, in name order (by the whole path).

        The version is 0 for local files.
        """
        if folder.scheme == "local":
            try:
                for relative, size in local_files.walk(folder.path):
                    yield relative, size, 0
            except NotADirectoryError:
                raise ObjectError("It is not a folder.") from None
            except OSError as error:
                raise local_files.explain(error) from None
        else:
            start = len(f"{folder.path.rstrip('/')}/") if folder.path else 0
            async with aclosing(self.bucket(folder).list(folder.path)) as found_keys:
                async for key, size, version in found_keys:
                    yield key[start:], size, version

    async def top(self, folder: Address) -> Sequence[str]:
        """Names directly below a folder; none if it does not exist."""
        if folder.scheme == "local":
            try:
                return sorted(os.listdir(folder.path))
            except FileNotFoundError:
                return []
            except NotADirectoryError:
                raise ObjectError("It is a file, not a folder.") from None
            except OSError as error:
                raise local_files.explain(error) from None
        return await self.bucket(folder).top(folder.path)

    async def delete(self, folder: Address) -> None:
        """Remove a folder and everything below it; one that does not exist is no error."""
        if folder.scheme == "local":
            local_files.remove_tree(folder.path)
            return
        bucket = self.bucket(folder)
        keys = [key async for key, _, _ in bucket.list(folder.path)]
        await bucket.delete(keys)

    async def close(self) -> None:
        """Close every connection, and what else is open."""
        forget_folder()
        if self._links is not None:
            await self._links.close()
        for bucket in self._buckets.values():
            await bucket.close()


class OutputFolder:
    """The output folder of one run: results, scratch and manifests are written through it.

    ``root`` must exist while the run lasts if it is a local folder; folders below it are made when they are needed. The
    ``scratch`` folder, once it was made, shows that it is still the same ``root``, unless it does not ``lasts``.
    """

    def __init__(self, storage: Storage, root: Address, scratch: str, *, lasts: bool = True) -> None:
        self._storage = storage
        self.root = root
        self.scratch = root.child(scratch)
        self._temporary = self.scratch.child("tmp").path
        self._lasts = lasts
        self._made = False
        self._sync = FileSystemSync(root.path) if root.scheme == "local" else None

    async def write(self, relative: str, data: bytes) -> None:
        """Write a whole file, visible only once it is complete."""
        address = self.root.child(relative)
        if address.scheme == "local":
            await local_files.write(self.root.path, address.path, data, self._temporary, made=self._made)
            self._made = self._lasts
        else:
            await self._storage.bucket(address).write(address.path, data)

    def join(self) -> None:
        """Write only as long as the scratch folder is there, which another process has made: not once it has published.

        Raises ObjectError if it is gone already.
        """
        if self.root.scheme == "local" and not self._made:
            try:
                local_files.make_one(self._temporary)
            except OSError as error:
                raise local_files.explain(error) from None
            self._made = True

    async def read(self, relative: str) -> bytes:
        """Read a file that the run wrote."""
        return await self._storage.read(self.root.child(relative))

    async def list(self, relative: str) -> Sequence[str]:
        """Names below a folder that the run wrote; none if it does not exist."""
        folder = self.root.child(relative)
        try:
            return [name async for name, _, _ in self._storage.list(folder)]
        except ObjectError as error:
            if error.missing:
                return []
            raise

    async def delete_files(self, relative: Sequence[str]) -> None:
        """Delete files; one that does not exist is no error."""
        if self.root.scheme != "local":
            await self._storage.bucket(self.root).delete([self.root.child(name).path for name in relative])
            return
        for name in relative:
            try:
                os.unlink(self.root.child(name).path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise local_files.explain(error) from None

    @asynccontextmanager
    async def stream(self, relative: str) -> AsyncIterator[Any]:
        """A writer (``await writer.write(bytes)``) for a large file, visible once the block ended without error.

        It is on the disk then, after power was lost, too.
        """
        address = self.root.child(relative)
        if address.scheme == "local":
            temporary = ""
            try:
                if self._made and self.is_gone():
                    raise local_files.FolderGone
                local_files.make_folder(self.root.path, self._temporary)
                self._made = self._lasts
                local_files.make_folder(self.root.path, os.path.dirname(address.path))
                descriptor, temporary = open_new(self._temporary)
                with os.fdopen(descriptor, "wb") as file:
                    yield LocalWriter(file)
                    file.flush()
                    await asyncio.to_thread(os.fsync, file.fileno())
                os.replace(temporary, address.path)
                await asyncio.to_thread(sync_folder, os.path.dirname(address.path))
                temporary = ""
            except OSError as error:
                raise local_files.explain(error) from None
            finally:
                if temporary:
                    local_files.remove_file(temporary)
        else:
            writer = PartWriter(self._storage.bucket(address), address.path)
            try:
                yield writer
            except BaseException:
                await writer.give_up()
                raise
            await writer.close()

    async def sync(self) -> None:
        """Returns once all that was written before the call is still there after power was lost. Raises ObjectError.

        Objects are, once they are put.
        """
        if self._sync is not None:
            try:
                await self._sync.sync()
            except OSError as error:
                raise local_files.explain(error) from None

    def has(self, relative: str, size: int) -> bool:
        """Whether a file of ``size`` bytes is there, on a local disk: it may be cut after power was lost.

        An object is there as it was put.
        """
        if self.root.scheme != "local":
            return True
        try:
            return os.stat(self.root.child(relative).path).st_size == size
        except OSError:
            return False

    def is_gone(self) -> bool:
        """Whether the folder was there and is not any more, or another one is in its place.

        (Local folders; a bucket's folders are no things.)
        """
        if self.root.scheme != "local":
            return False
        return not os.path.isdir(self._temporary if self._made else self.root.path)

    async def takes_more(self) -> bool:
        """Whether a small file can still be written."""
        try:
            probe = f"{self.scratch.name}/room-{unique_name()}"
            await self.write(probe, bytes(ROOM_BYTES))
            await self.delete_files([probe])
        except ObjectError:
            return False
        return True

    async def sizes(self, relative: str) -> AsyncGenerator[Sequence[tuple[str, int]]]:
        """Path relative to a folder of the run, and size, of every file below it, many at a time, in no order."""
        folder = self.root.child(relative)
        if self.root.scheme == "local":
            found = local_files.sizes(folder.path)
            try:
                while page := await asyncio.to_thread(lambda: [*itertools.islice(found, PAGE_FILES)]):
                    yield page
            except OSError as error:
                raise local_files.explain(error) from None
            return
        page = []
        async with aclosing(self._storage.list(folder)) as files:
            async for name, size, _ in files:
                page.append((name, size))
                if len(page) == PAGE_FILES:
                    yield page
                    page = []
        if page:
            yield page

    async def size(self, relative: str) -> int:
        """Bytes of a file that the run wrote. Raises ObjectError; what is no regular file is missing."""
        address = self.root.child(relative)
        if address.scheme != "local":
            return await self._storage.size(address)
        try:
            status = os.lstat(address.path)
        except OSError as error:
            raise local_files.explain(error) from None
        if not stat.S_ISREG(status.st_mode):
            raise ObjectError("It is not a regular file.", missing=True)
        return status.st_size

    async def give_up_uploads(self, names: Sequence[str]) -> None:
        """Give up uploads of large objects whose names begin so, that a killed try of the run has left incomplete."""
        if self.root.scheme != "local":
            for name in names:
                await self._storage.bucket(self.root).abort_uploads(self.root.child(name).path)

    async def remove_scratch(self) -> None:
        """Remove plan and reports."""
        self._made = False
        await self._storage.delete(self.scratch)

    async def make(self) -> None:
        """Make the folder itself, if it is a local one that does not exist yet."""
        if self.root.scheme == "local":
            local_files.refuse_system(self.root.path)
            try:
                os.makedirs(self.root.path, exist_ok=True)
            except OSError as error:
                raise local_files.explain(error) from None

    async def check_writable(self) -> None:
        """Write and delete a small file; a local folder that does not exist yet needs to be creatable only.

        Leaves nothing behind. Raises ObjectError.
        """
        if self.root.scheme != "local":
            if is_odd(self.root.child("x").path):
                raise ObjectError("The folder's key should have no empty, '.' or '..' part and no control character.")
            await self._probe()
            return
        local_files.refuse_system(self.root.path)
        if not os.path.lexists(self.root.path):
            if not local_files.is_creatable(self.root.path):
                raise ObjectError("It does not exist and cannot be created (no permission, or a file is in the way).")
            return
        await self._probe()
        self._made = False
        if os.listdir(self.scratch.path) == ["tmp"]:  # else it belongs to another try of the run
            local_files.remove_empty(self._temporary, self.scratch.path)

    async def _probe(self) -> None:
        probe = f"{self.scratch.name}/probe"
        await self.write(probe, b"")
        await self.delete_files([probe])


@asynccontextmanager
async def open_output(
    settings: Settings, credentials: Mapping[str, Credentials], root: Address, scratch: str
) -> AsyncIterator[tuple[Storage, OutputFolder]]:
    """A storage, and a run's output folder on it, while the block lasts."""
    storage = Storage(settings, credentials)
    try:
        yield storage, OutputFolder(storage, root, scratch)
    finally:
        await storage.close()
