"""Batch inference services on Prefect: the public Python API. Other modules may change from version to version.

::

    import thresher

    result = thresher.run("digits.yaml")
    for item in result:
        print(item.source, item.answer() if item.succeeded else item.error)

Nothing here imports Prefect before it is needed. In async code :func:`run`, :func:`deploy`, :func:`start`,
:func:`wait`, :func:`stop` and :func:`show` are awaited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .own_packages import check_own_packages

check_own_packages()

from tasks.domain.errors import RunError, SpecificationError, ThresherError  # noqa: E402 - not before the check
from tasks.domain.service import BatchService  # noqa: E402

from .calls import deploy, results, run, show, start, stop, wait  # noqa: E402

if TYPE_CHECKING:
    from deployments.services.service import Execution as Run
    from deployments.services.service import Service

    from .outcomes import ItemOutcome, Result, Results

__all__ = [
    "BatchService",
    "ItemOutcome",
    "Result",
    "Results",
    "Run",
    "RunError",
    "Service",
    "SpecificationError",
    "ThresherError",
    "deploy",
    "results",
    "run",
    "show",
    "start",
    "stop",
    "wait",
]


def __getattr__(name: str) -> Any:
    """The types of what functions return: their modules take a while to import."""
    if name in ("ItemOutcome", "Result", "Results"):
        from . import outcomes

        return getattr(outcomes, name)
    if name in ("Run", "Service"):
        from deployments.services import service

        return getattr(service, name.replace("Run", "Execution"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
