"""Model packages: reading their ``config.json``, and copying their files to this machine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path

from tasks.clients.packages.package_files import (
    COPY_COMPLETE,
    MAX_BYTES,
    MAX_FILES,
    changed_file,
    file_seals,
    name_problem,
)
from tasks.clients.packages.uses import use
from tasks.clients.storage.failures import IsFolder, Missing, ObjectError, TooLarge
from tasks.clients.storage.storage import Storage
from tasks.domain.config_file import parse_config
from tasks.domain.errors import Problem, SpecificationError, StorageError
from tasks.domain.package import CONFIG_NAMES, PackageConfig
from tasks.domain.paths import Address, parse_address
from tasks.domain.unexpected import cause_of_library

MAX_CONFIG_BYTES = 4 << 20


async def read_config(storage: Storage, folder: Address) -> tuple[PackageConfig, Address]:
    """A package's configuration, and the folder that holds it (the package's, or ``model/`` below it).

    Raises SpecificationError if it is missing or malformed.
    """
    raw, address = await raw_config(storage, folder)
    return parse_config(raw, str(address)), holder_of(folder, address)


def holder_of(folder: Address, config: Address) -> Address:
    """The folder that holds a package's config.json: ``folder`` itself, or ``model/`` below it."""
    return folder if config == folder.child(CONFIG_NAMES[0]) else folder.child("model")


async def raw_config(storage: Storage, folder: Address) -> tuple[bytes, Address]:
    """The content of a package's config.json, and its address. Raises SpecificationError if it cannot be read."""
    for name in CONFIG_NAMES:
        address = folder.child(name)
        try:
            return await storage.read(address, MAX_CONFIG_BYTES), address
        except (Missing, IsFolder):
            continue
        except TooLarge as error:
            expected = f"{name} has {error.size} bytes; it should have at most {MAX_CONFIG_BYTES}"
            raise SpecificationError([Problem("model", str(folder), expected)]) from None
        except ObjectError as error:
            raise SpecificationError([Problem("model", str(folder), f"{name} cannot be read: {error.cause}")]) from None
    expected = f"should be a model package folder with {' or '.join(CONFIG_NAMES)}; neither is there"
    raise SpecificationError([Problem("model", str(folder), expected)])


async def files_of(storage: Storage, folder: Address) -> set[str]:
    """Names directly below a package's folder. Raises StorageError."""
    try:
        return set(await storage.top(folder))
    except ObjectError as error:
        raise StorageError(f"The model package {folder} cannot be listed: {error.cause}") from None


async def check_wheels(storage: Storage, folder: Address, config: PackageConfig) -> None:
    """Raises SpecificationError naming each wheel or archive of its dependencies that a package does not have."""
    problems = []
    for field, name in config.wheels.items():
        try:
            there = await storage.is_file(folder.child(name))
        except ObjectError as error:
            raise StorageError(f"The model package {folder} cannot be read: {error.cause}") from None
        if not there:
            problems.append(Problem(f"{field} of the model's config.json", name, f"there is no such file in {folder}"))
    if problems:
        raise SpecificationError(problems)


async def local_copy(storage: Storage, folder: str, cache: Path, only: Collection[str] = ()) -> Path:
    """The folder of a package on this machine: itself if it is local, else a copy cached by content.

    ``only``: the files that are needed; empty for all. Raises StorageError if it cannot be copied.
    """
    address = parse_address(folder)
    if address.scheme == "local":
        return Path(address.path)
    try:
        found = [one async for one in storage.list(address) if not only or one[0] in only]
    except ObjectError as error:
        raise StorageError(f"The model package {address} cannot be read: {error.cause}") from None
    if not found:
        raise StorageError(f"The model package {address} has no files.")
    _check(address, found)
    digest = hashlib.sha256(str(address).encode())
    for name, size, version in found:
        digest.update(f"\n{name} {size} {version}".encode())
    copy = cache / "packages" / digest.hexdigest()[:24]
    use(copy)
    if await asyncio.to_thread(is_whole, copy):
        return copy
    try:
        with partial_copy(copy) as partial:
            for name, size, version in found:
                await _download(storage, address.child(name), size, version, partial / name)
            await asyncio.to_thread(complete, partial, copy)
    except ObjectError as error:
        raise StorageError(f"The model package {address} cannot be copied: {name}: {error.cause}") from None
    except OSError as error:
        raise StorageError(f"The model package {address} cannot be copied: {cause_of_library(error)}.") from None
    return copy


@contextmanager
def partial_copy(copy: Path) -> Iterator[Path]:
    """A new folder in which a copy is made, next to its place; removed at the end unless it was put there."""
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", suffix=".part", dir=copy.parent))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(address: Address, found: Sequence[tuple[str, int, int]]) -> None:
    """Raises StorageError if the listed names, their number or their total size cannot be those of a package."""
    for name, _, _ in found:
        if problem := name_problem(name):
            raise StorageError(f"The model package {address} cannot be copied: {problem}.")
    total = sum(size for _, size, _ in found)
    if len(found) > MAX_FILES or total > MAX_BYTES:
        raise StorageError(
            f"The model package {address} has {len(found)} files of {total} bytes together; it should have at most "
            f"{MAX_FILES} of {MAX_BYTES}."
        )


async def _download(storage: Storage, address: Address, size: int, version: int, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as file:
        async with aclosing(storage.bucket(address).pieces(address.path, size, version)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(file.write, piece)


def complete(partial: Path, copy: Path) -> None:
    """Seal a copy that has all its files, and put it in its place. Raises OSError."""
    (partial / COPY_COMPLETE).write_text(json.dumps(file_seals(partial)))
    _put(partial, copy)


def is_whole(copy: Path) -> bool:
    """Whether a complete copy exists whose files are unchanged; a model may add others to its folder."""
    try:
        return changed_file(copy, json.loads((copy / COPY_COMPLETE).read_bytes())) is None
    except (OSError, ValueError, AttributeError):
        return False


def _put(partial: Path, copy: Path) -> None:
    """Move a complete copy to its final name by an atomic rename. Raises OSError."""
    for last in (False, True):
        try:
            partial.rename(copy)
            return
        except OSError:
            if is_whole(copy):  # another process was first
                return
            if last:
                raise
            # It was changed after it was made, for example by a model, and must not be served to others.
            changed = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", suffix=".changed", dir=copy.parent))
            copy.rename(changed)
            shutil.rmtree(changed, ignore_errors=True)
