"""Which run the flow run of this context does: its own, or one that was begun on a Prefect server that has lost it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prefect import runtime

_taken_up: ContextVar[str] = ContextVar("taken_up", default="")


def own_task_id() -> str:
    """The id of the run, by which everything that it writes is named."""
    return _taken_up.get() or str(runtime.flow_run.id)


@contextmanager
def taking_up(task_id: str) -> Iterator[None]:
    """While it lasts, a flow that is called resumes the run of this id from its scratch folder alone."""
    before = _taken_up.set(task_id)
    try:
        yield
    finally:
        _taken_up.reset(before)
