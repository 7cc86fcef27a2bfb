"""Isolated Python environments of model packages, cached by content."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tasks.clients.packages.installing import Installer, Rules
from tasks.clients.packages.package_files import is_sealed, seal
from tasks.clients.packages.pythons import Interpreter, own_interpreter
from tasks.clients.packages.uses import COMPLETE_ENVIRONMENT, is_used_elsewhere, use
from tasks.clients.processes.file_lock import locked
from tasks.domain.errors import ModelServerError
from tasks.domain.settings import ROOT

SERVING = ROOT / "infra" / "serving"
"""The built-in model server, which runs inside the environments."""
DEFAULT_RULES = Rules()
_NOTES = "thresher-notes.json"
_REQUIREMENTS_FILES = (".txt", ".in")
_OPTION = re.compile(r"^(-[rc]|--(requirement|constraint)=)(?=.)")


def key_of(
    steps: Sequence[Sequence[str]], folder: Path, interpreter: Interpreter | None = None, rules: Rules = DEFAULT_RULES
) -> str:
    """The cache key of an environment: a hash of everything that determines its content.

    ``steps`` are the arguments of ``uv pip install``, in order; files they name (wheels, requirements) are hashed by
    content.
    """
    python = interpreter or own_interpreter()
    digest = hashlib.sha256(f"2 {python.build} {sys.platform} {python.path} {rules.loosen} {rules.cpu}".encode())
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


async def environment(
    steps: Sequence[Sequence[str]],
    folder: Path,
    cache: Path,
    interpreter: Interpreter | None = None,
    rules: Rules = DEFAULT_RULES,
) -> Path:
    """The folder of an environment in which ``steps`` were installed, in order; made if it does not exist yet.

    ``folder`` is the package's: relative file names in the steps are relative to it. ``interpreter`` is by default the
    one of this process. If two processes need the same environment, it is made once. Raises ModelServerError with the
    package that cannot be installed, and why.
    """
    home = cache / "environments"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = home / key_of(steps, folder, interpreter, rules)
    use(made)
    if await asyncio.to_thread(is_sealed, made, COMPLETE_ENVIRONMENT):
        return made
    async with _locked(home / f"{made.name}.lock"):
        if await asyncio.to_thread(is_sealed, made, COMPLETE_ENVIRONMENT):
            return made
        if (made / COMPLETE_ENVIRONMENT).exists():
            _check_unused(made)  # changed after it was made, for example by a model
        shutil.rmtree(made, ignore_errors=True)
        installer = Installer(made, folder, home, interpreter or own_interpreter(), rules)
        try:
            await installer.make(steps)
            (made / _NOTES).write_text(json.dumps(installer.notes))
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        await asyncio.to_thread(seal, made, COMPLETE_ENVIRONMENT)
    return made


def notes_of(made: Path) -> list[str]:
    """What was installed otherwise than the package says when an environment was made."""
    return [str(note) for note in json.loads((made / _NOTES).read_bytes())]


def _check_unused(made: Path) -> None:
    """Raises ModelServerError if another process uses an environment that was changed and must be rebuilt."""
    if is_used_elsewhere(made):
        raise ModelServerError(
            f"The environment {made} was changed after it was made, and another run uses it: it is made again once "
            "that run has ended."
        )


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Wait for a lock between processes, and hold it."""
    while (handle := locked(path, os.O_RDWR, 0o600)) is None:
        await asyncio.sleep(0.1)
    try:
        yield
    finally:
        os.close(handle)
