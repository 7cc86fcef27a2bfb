"""Gathers what must not change between tries of a run: the state of its model's package and of its input manifest."""

from __future__ import annotations

import os

from tasks.clients.storage.failures import IsFolder, Missing, ObjectError, TooLarge
from tasks.clients.storage.storage import Storage
from tasks.domain.errors import StorageError
from tasks.domain.fingerprint import Digest, Fingerprint, fingerprint, listed, together
from tasks.domain.manifest import MANIFEST_SUFFIX
from tasks.domain.package import BOOT_FILE, CUSTOM_SERVICE, REQUIREMENTS
from tasks.domain.paths import Address, parse_address, redact
from tasks.domain.run import Run

_CODE = (CUSTOM_SERVICE, BOOT_FILE, REQUIREMENTS)
_MAX_CODE_BYTES = 4 << 20


async def fingerprint_of(run: Run, storage: Storage, *, with_manifest: bool = True) -> Fingerprint:
    """The current fingerprint of a run. Raises StorageError if the package or the manifest cannot be read.

    A caller that reads the input manifest anyway leaves it out here and adds it by :meth:`Fingerprint.with_manifest`.
    """
    source = parse_address(run.service.input_path)
    try:
        files = code = ""
        if run.package is not None:
            folder = parse_address(run.package)
            files = listed([(name, size) async for name, size, _ in storage.list(folder)])
            code = together(await _code(storage, folder))
        manifest = await _digest(storage, source) if with_manifest and is_manifest(source) else ""
    except ObjectError as error:
        shown = redact(f"{run.package or ''} or {run.service.input_path}".removeprefix(" or "))
        raise StorageError(f"{shown} cannot be read: {error.cause}") from None
    return fingerprint(run, files, code, manifest)


def is_manifest(source: Address) -> bool:
    """Whether an input path is an input manifest; a folder may have such a name."""
    return source.path.endswith(MANIFEST_SUFFIX) and (source.scheme != "local" or not os.path.isdir(source.path))


async def _code(storage: Storage, folder: Address) -> dict[str, bytes]:
    """The full content of the files that serve a package: a fix often does not change their size."""
    found = {}
    for name in _CODE:
        try:
            found[name] = await storage.read(folder.child(name), _MAX_CODE_BYTES)
        except TooLarge:
            continue  # its size is in the list of all files
        except (Missing, IsFolder):
            continue
    return found


async def _digest(storage: Storage, source: Address) -> str:
    digest = Digest()
    async for chunk in storage.stream(source):
        digest.add(chunk)
    return str(digest)
