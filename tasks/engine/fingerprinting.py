"""Gathering what must be the same when a run is tried again: of its model's package, and of its input manifest."""

from __future__ import annotations

import os

from tasks.clients.failures import ObjectError, TooLarge
from tasks.clients.storage import Storage
from tasks.domain.errors import StorageError
from tasks.domain.fingerprint import Digest, Fingerprint, fingerprint, listed, together
from tasks.domain.manifest import MANIFEST_SUFFIX
from tasks.domain.package import BOOT_FILE, CUSTOM_SERVICE, REQUIREMENTS
from tasks.domain.paths import Address, parse_address, redact
from tasks.domain.run import Run

_CODE = (CUSTOM_SERVICE, BOOT_FILE, REQUIREMENTS)
_MAX_CODE_BYTES = 4 << 20


async def fingerprint_of(run: Run, storage: Storage, *, with_manifest: bool = True) -> Fingerprint:
    """The fingerprint of a run as everything is now. Raises StorageError if package or manifest cannot be read.

    Without the input manifest for whoever reads that anyhow, and describes it by :meth:`Fingerprint.with_manifest`.
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
    """Whether an input path is an input manifest: a folder may be called like one."""
    return source.path.endswith(MANIFEST_SUFFIX) and (source.scheme != "local" or not os.path.isdir(source.path))


async def _code(storage: Storage, folder: Address) -> dict[str, bytes]:
    """The files by which a package is served, in full: a correction often leaves their size as it was."""
    found = {}
    for name in _CODE:
        try:
            found[name] = await storage.read(folder.child(name), _MAX_CODE_BYTES)
        except TooLarge:
            continue  # its size is in the list of all files
        except ObjectError as error:
            if not (error.missing or error.is_folder):
                raise
    return found


async def _digest(storage: Storage, source: Address) -> str:
    digest = Digest()
    async for chunk in storage.stream(source):
        digest.add(chunk)
    return str(digest)
