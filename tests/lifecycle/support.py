"""What tests of services share: a run whose process is suddenly gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def vanished(stack, task_id: str) -> Iterator[None]:
    """A run of one-at-a-time and its worker are killed; the worker is there again afterwards."""
    worker = stack.attend("one-at-a-time")
    try:
        worker.process.kill()
        worker.process.wait()
        for pid in _processes_of_run(task_id):
            _kill(pid)
        yield
    finally:
        worker.start()


def _processes_of_run(task_id: str) -> list[int]:
    """The processes in whose environment the worker has put this flow run's id."""
    mark, found = f"={task_id}".encode(), []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and any(
                one.startswith(b"PREFECT__FLOW_RUN_ID=") and one.endswith(mark)
                for one in (entry / "environ").read_bytes().split(b"\0")
            ):
                found.append(int(entry.name))
        except OSError:
            continue
    assert found
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, 9)
