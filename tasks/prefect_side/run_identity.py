"""The run that the current flow run executes: its own, or one that began on a Prefect server that has lost it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prefect import runtime

_taken_up: ContextVar[str] = ContextVar("taken_up", default="")


def own_task_id() -> str:
    """The id of the run, which is in the name of everything that it writes."""
    return _taken_up.get() or str(runtime.flow_run.id)


@contextmanager
def taking_up(task_id: str) -> Iterator[None]:
    """For the duration of the block, a called flow resumes the run with this id from its scratch folder alone."""
    before = _taken_up.set(task_id)
    try:
        yield
    finally:
        _taken_up.reset(before)
