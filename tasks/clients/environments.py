"""Isolated Python environments of model packages, made by uv and kept by content."""

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

from tasks.clients.lifeline import GuardedProcess
from tasks.clients.temporary_names import unique_name
from tasks.domain.errors import ModelServerError
from tasks.domain.paths import redact
from tasks.settings import ROOT

SERVING = ROOT / "infra" / "serving"
"""The built-in model server, which runs inside the environments."""
_COMPLETE = ".complete"
_OUTPUT_SHOWN = 3000
_REQUIREMENTS_FILES = (".txt", ".in")
_OPTION = re.compile(r"^(-[rc]|--(requirement|constraint)=)(?=.)")
_KEPT_BACK = ("AWS_", "OBS_", "PREFECT_", "THRESHER_")
"""Variables of this process that uv, and the packages that it builds, have no business with."""


def key_of(steps: Sequence[Sequence[str]], folder: Path) -> str:
    """What an environment is kept under: a hash of everything that decides its content.

    ``steps`` are the arguments of ``uv pip install``, in order; files they name (wheels, requirements) count by
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
    """The content of a file, and of the files that it names if it is a requirements file."""
    try:
        if path in seen or not path.is_file():
            return
    except (OSError, ValueError):  # no file can have such a name
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
    """The folder of an environment in which ``steps`` were installed, in order; made if there is none yet.

    ``folder`` is the package's: relative file names in the steps are taken below it. Two processes that want the same
    one make it once. Raises ModelServerError with what uv said.
    """
    home = cache / "environments"
    home.mkdir(parents=True, exist_ok=True)
    made = home / key_of(steps, folder)
    if (made / _COMPLETE).exists():
        return made
    async with _locked(home / f"{made.name}.lock"):
        if (made / _COMPLETE).exists():
            return made
        shutil.rmtree(made, ignore_errors=True)
        try:
            await _uv(home, folder, "venv", "--quiet", "--no-project", "--python", sys.executable, str(made))
            for step in steps:
                await _uv(
                    home, folder, "pip", "install", "--quiet", "--compile-bytecode",
                    "--python", str(made / "bin" / "python"), *step,
                )  # fmt: skip
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        (made / _COMPLETE).touch()
    return made


async def _uv(home: Path, folder: Path, *arguments: str) -> None:
    from uv import find_uv_bin

    log = home / f"uv-{unique_name()}.log"
    own = {name: value for name, value in os.environ.items() if not name.startswith(_KEPT_BACK)}
    process = await GuardedProcess.start(
        [find_uv_bin(), *arguments], folder=folder, environment=own | {"VIRTUAL_ENV": ""}, log=log
    )
    try:
        status = await process.ended()
        said = redact(log.read_text(errors="replace")).strip()
    finally:
        await process.stop()
        log.unlink(missing_ok=True)
    if status != 0:
        raise ModelServerError(
            f"The model package's environment could not be made (uv {' '.join(arguments[:2])} ended with {status}):\n"
            f"{said[-_OUTPUT_SHOWN:]}"
        )


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock between processes; the system frees it if this one dies."""
    with open(path, "w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.1)
        yield
