"""What the tests of the doors share: waiting for a condition, looking at processes, running on the engine's loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
FAKE_MODEL_SERVER = TESTS / "fakes" / "model_server.py"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on the loop that the product runs on."""
    return uvloop.run(work)


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: Callable[[], Any], timeout_seconds: float = 20.0) -> Any:
    """Poll until the condition holds; what it gave."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
    return found


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
