"""What the tests of the doors share: looking at processes, running on the engine's loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from fakes.processes import alive
from fakes.processes import poll as wait_for

T = TypeVar("T")
RUN_SECONDS = 240.0
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
FAKE_MODEL_SERVER = TESTS / "fakes" / "model_server.py"
__all__ = [
    "FAKE_MODEL_SERVER", "ROOT", "TESTS", "alive", "pids", "processes_with", "run", "variables", "wait_for"
]  # fmt: skip


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on the loop that the product runs on.

    It swallows what a signal handler raises there, so that a test that waits in vain is ended here, not by pytest.
    """

    async def bounded() -> T:
        async with asyncio.timeout(RUN_SECONDS):
            return await work

    return uvloop.run(bounded())


def processes_with(mark: str) -> list[int]:
    """Processes in whose command line or environment ``mark`` stands, without this one."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in text and alive(int(folder.name)):
            found.append(int(folder.name))
    return found


def pids(log: Path) -> dict[str, int]:
    """Lines ``<name> <process id>`` of a log file."""
    if not log.exists():
        return {}
    lines = (line.split() for line in log.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}


@contextmanager
def variables(**given: str | None) -> Iterator[None]:
    """Environment variables of this process for a while; None removes one."""
    before = dict(os.environ)
    for name, value in given.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
