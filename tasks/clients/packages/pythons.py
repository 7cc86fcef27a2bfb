"""The Pythons of this machine: found by version on PATH, in pyenv, by uv, or in a setting."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tasks.domain.errors import ModelServerError
from tasks.domain.instance import handed_on
from tasks.domain.runtime import OLDEST_PYTHON, Runtime

_ASK = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.version.replace('\\n', ' '))"
_ASK_SECONDS = 30


@dataclass(frozen=True)
class Interpreter:
    """A Python that environments can be made with; ``build`` tells it from others of its version."""

    path: str
    version: tuple[int, int]
    build: str

    def __str__(self) -> str:
        return f"Python {self.version[0]}.{self.version[1]}"


def own_interpreter() -> Interpreter:
    """The one that runs this process."""
    return Interpreter(sys.executable, sys.version_info[:2], sys.version)


async def interpreter_for(runtime: Runtime, places: Sequence[str], *, loosen: bool) -> tuple[Interpreter, list[str]]:
    """The Python that a runtime names, and warnings; without a name, the one of this process.

    ``places`` are interpreters, or folders that hold some, which the administrator names. Raises ModelServerError in
    one line if this machine does not have it, unless ``loosen``: then the nearest one is taken.
    """
    own = own_interpreter()
    if runtime.python is None or runtime.python == own.version:
        return own, []
    if runtime.python >= OLDEST_PYTHON:
        found = await asyncio.to_thread(_find, runtime.python, tuple(places))
        if found is not None:
            return found, []
        if not loosen:
            raise ModelServerError(
                f"The model's runtime {runtime.text} names Python {runtime.python_text}, which this machine does not "
                "have (looked for on PATH, in pyenv, by uv and in THRESHER_PYTHONS). Install it, or set loosen: true "
                "in the service (THRESHER_LOOSEN) to take the nearest one."
            )
    nearest = await asyncio.to_thread(_nearest, runtime.python, own, tuple(places))
    return nearest, [f"The model's runtime {runtime.text} names Python {runtime.python_text}: {nearest} serves it."]


def _nearest(version: tuple[int, int], own: Interpreter, places: tuple[str, ...]) -> Interpreter:
    for minor in range(max(version, OLDEST_PYTHON)[1] if version[0] == 3 else OLDEST_PYTHON[1], own.version[1]):
        if (found := _find((3, minor), places)) is not None:
            return found
    return own


@cache
def _find(version: tuple[int, int], places: tuple[str, ...]) -> Interpreter | None:
    for path in _candidates(version, places):
        try:
            # Isolated: what PYTHON* variables say is meant for other interpreters.
            done = subprocess.run(
                [path, "-I", "-c", _ASK],
                env=handed_on(os.environ), capture_output=True, text=True, timeout=_ASK_SECONDS,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            continue
        said, _, build = done.stdout.strip().partition("\n")
        if done.returncode == 0 and said == f"{version[0]}.{version[1]}":
            return Interpreter(path, version, build)
    return None


def _candidates(version: tuple[int, int], places: tuple[str, ...]) -> Iterator[str]:
    name = f"python{version[0]}.{version[1]}"
    for place in places:
        path = Path(place).expanduser()
        if path.is_file():
            yield str(path)
        else:
            yield from map(str, (*path.glob(name), *path.glob(f"bin/{name}"), *path.glob(f"*/bin/{name}")))
    if (on_path := shutil.which(name)) is not None:
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob(f"versions/{version[0]}.{version[1]}.*/bin/{name}"), reverse=True))
    yield from _by_uv(version)


def _by_uv(version: tuple[int, int]) -> Iterator[str]:
    from uv import find_uv_bin

    command = [find_uv_bin(), "python", "find", "--no-python-downloads", "--system", f"{version[0]}.{version[1]}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return
    if done.returncode == 0 and done.stdout.strip():
        yield done.stdout.strip()
