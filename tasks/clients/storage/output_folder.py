"""The output folder of one run, on a local disk or in a bucket, for results, scratch and manifests."""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from tasks.clients.storage import local_files
from tasks.clients.storage.durable import FileSystemSync, sync_folder
from tasks.clients.storage.failures import Missing, NoSpace, ObjectError
from tasks.clients.storage.object_store import is_odd
from tasks.clients.storage.part_writers import LocalWriter, PartWriter
from tasks.clients.storage.storage import Storage, open_storage
from tasks.clients.storage.temporary_names import open_new, unique_name
from tasks.domain.credentials import Credentials
from tasks.domain.paths import Address
from tasks.domain.settings import Settings

ROOM_BYTES = 64 << 10
"""A storage must accept a file of this size to accept results."""
PAGE_FILES = 5_000


class OutputFolder:
    """The output folder of one run: results, scratch and manifests are written through it.

    A local ``root`` must exist while the run lasts; folders below it are made on demand. Once made, the ``scratch``
    folder shows that ``root`` is still the same folder, unless ``lasts`` is false.
    """

    def __init__(self, storage: Storage, root: Address, scratch: str, *, lasts: bool = True) -> None:
        self._storage = storage
        self.root = root
        self.scratch = root.child(scratch)
        self._above = root.child("").path
        self._is_local = root.scheme == "local"
        self._temporary = self.scratch.child("tmp").path
        self._lasts = lasts
        self._made = False
        self._sync = FileSystemSync(root.path) if root.scheme == "local" else None

    async def write(self, relative: str, data: bytes) -> None:
        """Write a whole file, visible only once it is complete."""
        path = f"{self._above}{relative}"
        if self._is_local:
            await local_files.write(self.root.path, path, data, self._temporary, made=self._made)
            self._made = self._lasts
        else:
            await self._storage.bucket(self.root).write(path, data)

    def join(self) -> None:
        """Write only while the scratch folder made by another process exists; publishing removes it.

        Raises ObjectError if it is already gone.
        """
        if self.root.scheme == "local" and not self._made:
            with local_files.explained():
                local_files.make_one(self._temporary)
            self._made = True

    async def read(self, relative: str) -> bytes:
        """Read a file that the run wrote."""
        return await self._storage.read(self.root.child(relative))

    async def list(self, relative: str) -> Sequence[str]:
        """Names below a folder that the run wrote; empty if it does not exist."""
        folder = self.root.child(relative)
        try:
            return [name async for name, _, _ in self._storage.list(folder)]
        except Missing:
            return []

    async def delete_files(self, relative: Sequence[str]) -> None:
        """Delete files; a missing one is no error."""
        if self.root.scheme != "local":
            await self._storage.bucket(self.root).delete([self.root.child(name).path for name in relative])
            return
        for name in relative:
            with local_files.explained(), suppress(FileNotFoundError):
                os.unlink(self.root.child(name).path)

    @asynccontextmanager
    async def stream(self, relative: str) -> AsyncIterator[Any]:
        """A writer (``await writer.write(bytes)``) for a large file, visible once the block has ended without an error.

        It is then on disk, even after a power failure.
        """
        address = self.root.child(relative)
        if address.scheme == "local":
            temporary = ""
            try:
                with local_files.explained():
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
        """Returns once everything written before the call would survive a power failure. Raises ObjectError.

        Objects do once they are put.
        """
        if self._sync is not None:
            with local_files.explained():
                await self._sync.sync()

    def has(self, relative: str, size: int) -> bool:
        """Whether a local file of ``size`` bytes exists: a power failure may have truncated it.

        An object is always as it was put.
        """
        if self.root.scheme != "local":
            return True
        try:
            return os.stat(self.root.child(relative).path).st_size == size
        except OSError:
            return False

    def is_gone(self) -> bool:
        """Whether the folder existed and is gone, or was replaced by another one.

        Only for local folders: object stores have no folders.
        """
        if self.root.scheme != "local":
            return False
        return not os.path.isdir(self.scratch.path if self._made else self.root.path)

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
        """Path relative to a folder of the run, and size, of every file below it: in pages, in no particular order."""
        folder = self.root.child(relative)
        if self.root.scheme == "local":
            found = local_files.sizes(folder.path)
            with local_files.explained():
                while page := await asyncio.to_thread(lambda: [*itertools.islice(found, PAGE_FILES)]):
                    yield page
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
        """Size in bytes of a file that the run wrote. Raises ObjectError; anything but a regular file counts as
        missing.
        """
        address = self.root.child(relative)
        if address.scheme != "local":
            return await self._storage.size(address)
        with local_files.explained():
            status = os.lstat(address.path)
        if not stat.S_ISREG(status.st_mode):
            raise Missing("It is not a regular file.")
        return status.st_size

    async def give_up_uploads(self, names: Sequence[str]) -> None:
        """Abort multipart uploads of objects whose names have these prefixes, left incomplete by a killed try of the
        run.
        """
        if self.root.scheme != "local":
            for name in names:
                await self._storage.bucket(self.root).abort_uploads(self.root.child(name).path)

    async def remove_scratch(self) -> None:
        """Remove plan and reports."""
        self._made = False
        await self._storage.delete(self.scratch)

    async def make(self) -> None:
        """Make the folder itself, if it is local and does not exist yet."""
        if self.root.scheme == "local":
            local_files.refuse_system(self.root.path)
            with local_files.explained():
                os.makedirs(self.root.path, exist_ok=True)

    async def check_writable(self) -> None:
        """Write and delete a small file; a local folder that does not exist yet must be creatable, with some room.

        Leaves no files. Raises ObjectError.
        """
        if self.root.scheme != "local":
            if is_odd(self.root.child("x").path):
                raise ObjectError("The folder's key should have no empty, '.' or '..' part and no control character.")
            await self._probe()
            return
        local_files.refuse_system(self.root.path)
        if not os.path.lexists(self.root.path):
            if not local_files.is_creatable(self.root.path):
                raise ObjectError(
                    "It does not exist and cannot be created (no permission, a read-only disk, or a file in its way)."
                )
            if local_files.room_for(self.root.path) < ROOM_BYTES:
                raise NoSpace("No space left on device.")
            return
        try:
            await self._probe()
        finally:
            self._made = False
            with suppress(OSError):
                if os.listdir(self.scratch.path) == ["tmp"]:  # else it belongs to another try of the run
                    local_files.remove_empty(self._temporary, self.scratch.path)

    async def _probe(self) -> None:
        probe = f"{self.scratch.name}/probe"
        try:
            await self.write(probe, bytes(ROOM_BYTES))  # an empty one fits on a full disk
        finally:
            with suppress(ObjectError):
                await self.delete_files([probe])


@asynccontextmanager
async def open_output(
    settings: Settings, credentials: Mapping[str, Credentials], root: Address, scratch: str
) -> AsyncIterator[tuple[Storage, OutputFolder]]:
    """A storage, and a run's output folder on it, for the duration of the block."""
    async with open_storage(settings, credentials) as storage:
        yield storage, OutputFolder(storage, root, scratch)
