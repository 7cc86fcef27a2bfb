"""Model packages: reading their ``config.json``, and copying their files to this machine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.clients.packages.package_files import MAX_BYTES, MAX_FILES, changed_file, file_seals, name_problem
from tasks.clients.storage.endpoints import credentials_of
from tasks.clients.storage.failures import IsFolder, Missing, ObjectError, TooLarge
from tasks.clients.storage.odd_keys import s3fs_options
from tasks.clients.storage.storage import Storage
from tasks.domain.config_file import parse_config
from tasks.domain.credentials import Credentials
from tasks.domain.errors import Problem, SpecificationError, StorageError
from tasks.domain.package import CONFIG_NAMES, PackageConfig
from tasks.domain.paths import Address, parse_address, redact
from tasks.domain.unexpected import cause_of_library

_COMPLETE = ".thresher-complete"
MAX_CONFIG_BYTES = 4 << 20


async def read_config(storage: Storage, folder: Address) -> tuple[PackageConfig, Address]:
    """A package's configuration, and the folder that holds it (the package's, or ``model/`` below it).

    Raises SpecificationError if it is missing or malformed.
    """
    for name in CONFIG_NAMES:
        address = folder.child(name)
        try:
            raw = await storage.read(address, MAX_CONFIG_BYTES)
        except (Missing, IsFolder):
            continue
        except TooLarge as error:
            expected = f"{name} has {error.size} bytes; it should have at most {MAX_CONFIG_BYTES}"
            raise SpecificationError([Problem("model", str(folder), expected)]) from None
        except ObjectError as error:
            raise SpecificationError([Problem("model", str(folder), f"{name} cannot be read: {error.cause}")]) from None
        holder = folder.child("model") if name.startswith("model/") else folder
        return parse_config(raw, str(address)), holder
    expected = f"should be a model package folder with {' or '.join(CONFIG_NAMES)}; neither is there"
    raise SpecificationError([Problem("model", str(folder), expected)])


async def files_of(storage: Storage, folder: Address) -> set[str]:
    """Names directly below a package's folder. Raises StorageError."""
    try:
        return set(await storage.top(folder))
    except ObjectError as error:
        raise StorageError(f"The model package {folder} cannot be listed: {error.cause}") from None


def filesystem(address: Address, credentials: Mapping[str, Credentials]) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it: for everything off the hot path.

    Raises StorageError if the storage is not configured.
    """
    import fsspec

    if address.scheme == "local":
        return fsspec.filesystem("file"), address.path
    try:
        options = s3fs_options(credentials_of(address.scheme, credentials))
    except ObjectError as error:
        raise StorageError(f"{address} cannot be reached: {error.cause}") from None
    found = fsspec.filesystem("s3", **options)
    found.close_session = _close_sockets
    return found, f"{address.bucket}/{address.path}"


def endpoint_of(address: Address, credentials: Mapping[str, Credentials]) -> str:
    """The endpoint of an address, for display; empty for a local address, or if the storage is not configured."""
    if address.scheme == "local":
        return ""
    try:
        found = credentials_of(address.scheme, credentials)
    except ObjectError:
        return ""
    return redact(found.endpoint_url or f"AWS in {found.region or 'us-east-1'}")


def said_of(error: BaseException, endpoint: str) -> str:
    """An error of s3fs, for display: with the endpoint, and the HTTP status if there was a response."""
    if not endpoint:
        return cause_of_library(error)
    answer = getattr(error.__cause__ or error, "response", None)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    return f"{cause_of_library(error)} (endpoint {endpoint}{f', HTTP {status}' if status else ''})"


def _close_sockets(_: Any, s3: Any) -> None:
    """Replaces s3fs's own close, which on garbage collection leaves a task to whatever event loop runs there."""
    with suppress(AttributeError):  # already closed
        for session in s3._client._endpoint.http_session._sessions.values():
            session.connector._close()


async def local_copy(folder: str, cache: Path, credentials: dict[str, Credentials]) -> Path:
    """The folder of a package on this machine: itself if it is local, else a copy cached by content.

    Raises StorageError if it cannot be copied.
    """
    address = parse_address(folder)
    if address.scheme == "local":
        return Path(address.path)
    return await asyncio.to_thread(_copy, address, cache / "packages", credentials)


def _check(address: Address, relative: Mapping[str, str], found: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises StorageError if the listed names, their number or their total size cannot be those of a package."""
    for name in filter(None, relative.values()):
        if problem := name_problem(name):
            raise StorageError(f"The model package {address} cannot be copied: {problem}.")
    total = sum(int(info.get("size") or 0) for info in found.values())
    if len(found) > MAX_FILES or total > MAX_BYTES:
        raise StorageError(
            f"The model package {address} has {len(found)} files of {total} bytes together; it should have at most "
            f"{MAX_FILES} of {MAX_BYTES}."
        )


def _copy(address: Address, home: Path, credentials: Mapping[str, Credentials]) -> Path:
    try:
        source, path = filesystem(address, credentials)
        path = path.rstrip("/")
        found = source.find(path, detail=True)
    except StorageError:
        raise
    except Exception as error:  # s3fs lets botocore's errors through
        said = said_of(error, endpoint_of(address, credentials))
        raise StorageError(f"The model package {address} cannot be read: {said}.") from None
    if not found:
        raise StorageError(f"The model package {address} has no files.")
    relative = {name: name[len(path) :].lstrip("/") for name in found}
    _check(address, relative, found)
    digest = hashlib.sha256(str(address).encode())
    for name in sorted(found):
        info = found[name]
        digest.update(f"\n{name} {info.get('size')} {info.get('ETag')} {info.get('LastModified')}".encode())
    copy = home / digest.hexdigest()[:24]
    if _is_whole(copy):
        return copy
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", suffix=".part", dir=home))
    try:
        for name, below in relative.items():
            target = partial / below
            if not below or below.endswith("/"):  # the placeholder of a folder
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            source.get_file(name, str(target))
            listed, copied = int(found[name].get("size") or 0), target.stat().st_size
            if copied != listed:
                raise StorageError(
                    f"The model package {address} cannot be copied: {below} has {copied} bytes, listed were {listed}."
                )
        (partial / _COMPLETE).write_text(json.dumps(file_seals(partial)))
        _put(partial, copy)
    except StorageError:
        raise
    except Exception as error:
        said = cause_of_library(error)
        raise StorageError(f"The model package {address} cannot be copied: {said}.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return copy


def _is_whole(copy: Path) -> bool:
    """Whether a complete copy exists whose files are unchanged; a model may add others to its folder."""
    try:
        return changed_file(copy, json.loads((copy / _COMPLETE).read_bytes())) is None
    except (OSError, ValueError, AttributeError):
        return False


def _put(partial: Path, copy: Path) -> None:
    """Move a complete copy to its final name by an atomic rename. Raises OSError."""
    for last in (False, True):
        try:
            partial.rename(copy)
            return
        except OSError:
            if _is_whole(copy):  # another process was first
                return
            if last:
                raise
            # It was changed after it was made, for example by a model, and must not be served to others.
            changed = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", suffix=".changed", dir=copy.parent))
            copy.rename(changed)
            shutil.rmtree(changed, ignore_errors=True)
