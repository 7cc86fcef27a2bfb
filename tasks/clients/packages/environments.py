"""Isolated Python environments of model packages, made by uv and cached by content."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tasks.clients.packages.package_files import is_sealed, seal
from tasks.clients.processes.lifeline import GuardedProcess
from tasks.clients.storage.temporary_names import unique_name
from tasks.domain.environment import installer_environment
from tasks.domain.errors import ModelServerError
from tasks.domain.paths import redact
from tasks.domain.settings import ROOT

SERVING = ROOT / "infra" / "serving"
"""The built-in model server, which runs inside the environments."""
_COMPLETE = ".complete"
_OUTPUT_SHOWN = 3000
_REQUIREMENTS_FILES = (".txt", ".in")
_OPTION = re.compile(r"^(-[rc]|--(requirement|constraint)=)(?=.)")


def key_of(steps: Sequence[Sequence[str]], folder: Path) -> str:
    """The cache key of an environment: a hash of everything that determines its content.

    ``steps`` are the arguments of ``uv pip install``, in order; files they name (wheels, requirements) are hashed by
    content.
    """
    digest = hashlib.sha256(f"1 {sys.version} {sys.platform} {sys.executable}".encode())
    for step in steps:
        for argument in step:
            digest.update(f"\n{argument} ".encode())
            for content in _contents(folder / argument, folder, set()):
                digest.update(f"{len(content)} ".encode() + content)
        digest.update(b"\n--")
    return digest.hexdigest()[:24]


def _contents(path: Path, folder: Path, seen: set[Path]) -> Iterator[bytes]:
    """The content of a file and, for a requirements file, of the files that it names."""
    try:
        if path in seen or not path.is_file():
            return
    except (OSError, ValueError):  # not a possible file name
        return
    seen.add(path)
    content = path.read_bytes()
    yield content
    if path.suffix not in _REQUIREMENTS_FILES:
        return
    for word in content.decode("utf-8", "replace").split():
        for above in (path.parent, folder):
            yield from _contents(above / _OPTION.sub("", word), folder, seen)


async def environment(steps: Sequence[Sequence[str]], folder: Path, cache: Path) -> Path:
    """The folder of an environment in which ``steps`` were installed, in order; made if it does not exist yet.

    ``folder`` is the package's: relative file names in the steps are relative to it. If two processes need the same
    environment, it is made once. Raises ModelServerError with uv's output.
    """
    home = cache / "environments"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = home / key_of(steps, folder)
    _use(made)
    if await asyncio.to_thread(is_sealed, made, _COMPLETE):
        return made
    async with _locked(home / f"{made.name}.lock"):
        if await asyncio.to_thread(is_sealed, made, _COMPLETE):
            return made
        if (made / _COMPLETE).exists():
            _check_unused(made)  # changed after it was made, for example by a model
        shutil.rmtree(made, ignore_errors=True)
        try:
            await _uv(home, folder, "venv", "--quiet", "--no-project", "--python", sys.executable, str(made))
            for step in steps:
                await _uv(
                    home, folder, "pip", "install", "--quiet", "--compile-bytecode", "--link-mode", "copy",
                    "--python", str(made / "bin" / "python"), *step,
                )  # fmt: skip
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        await asyncio.to_thread(seal, made, _COMPLETE)
    return made


_used: dict[Path, int] = {}
"""File descriptors of the lock files that show other processes which environments this one uses."""


def _use(made: Path) -> None:
    """Show other processes that this one uses an environment, until it ends."""
    if made not in _used:
        _used[made] = os.open(made.with_name(f"{made.name}.used.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(_used[made], fcntl.LOCK_SH)


def _check_unused(made: Path) -> None:
    """Raises ModelServerError if another process uses an environment that was changed and must be rebuilt."""
    try:
        fcntl.flock(_used[made], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ModelServerError(
            f"The environment {made} was changed after it was made, and another run uses it: it is made again once "
            "that run has ended."
        ) from None
    finally:
        fcntl.flock(_used[made], fcntl.LOCK_SH)


async def _uv(home: Path, folder: Path, *arguments: str) -> None:
    from uv import find_uv_bin

    log = home / f"uv-{unique_name()}.log"
    own, secret = installer_environment(os.environ)
    # The build of a package runs with uv's own environment variables.
    building = ["--no-build"] if secret and arguments[:2] == ("pip", "install") else []
    process = await GuardedProcess.start(
        [find_uv_bin(), *arguments, *building], folder=folder, environment=own | {"VIRTUAL_ENV": ""}, log=log
    )
    try:
        status = await process.ended()
        detail = redact(log.read_text(errors="replace")).strip()
    finally:
        await process.stop()
        log.unlink(missing_ok=True)
    if status != 0:
        detail = detail or f"It printed nothing: perhaps there is no room in {home} (THRESHER_CACHE)."
        why = (
            f" Packages are not built from source while {secret} holds a password, which they would read."
            if building
            else ""
        )
        raise ModelServerError(
            f"The model package's environment could not be made (uv {' '.join(arguments[:2])} ended with {status}):\n"
            f"{detail[-_OUTPUT_SHOWN:]}{why}"
        )


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock between processes; the kernel releases it if this one dies."""
    with open(path, "w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.1)
        yield
