"""The functions of the API. Each imports what it needs when it is called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.domain.errors import Problem, SpecificationError, ThresherError
from tasks.domain.service import BatchService

if TYPE_CHECKING:
    from deployments.services.service import Execution, Service

    from .outcomes import Result, Results

Specification = BatchService | Mapping[str, Any] | str | os.PathLike[str]
"""A service: as an object, as its fields, or as the path of a YAML file with them."""


def run(service: Specification, *, resume: str | None = None) -> Any:
    """Run a service once, in this process, like ``thresher run``; returns its :class:`Result`.

    Uses the Prefect server that ``PREFECT_API_URL`` names, or else an embedded one. Prints nothing. Items that failed
    raise nothing: they are in the result, as is ``failure``, the reason why a run is Failed as a whole. ``resume`` is
    the id of a run of this service that was stopped or killed. Raises SpecificationError with every problem, and
    RunError if the run cannot go on. ::

        result = thresher.run("digits.yaml")
        print(result.manifest, result.successful, result.failed)
    """
    from deployments.one_run.run import run_service, run_service_in_async_code
    from tasks.engine.loop import in_async_code

    fields = _fields(service)
    if in_async_code():
        return _awaited_result(run_service_in_async_code(fields, resume=resume))
    try:
        return _result(run_service(fields, resume=resume))
    except ThresherError as error:
        failed = error.with_traceback(None)  # the message says it all
    raise failed from None


def deploy(service: Specification) -> Any:
    """Create a service on the Prefect server and start its first run; returns the :class:`Service`.

    Raises SpecificationError with every problem (nothing is created then), and RunError. ::

        service = thresher.deploy("digits.yaml")
        finished = thresher.wait(service)
    """
    return _lifecycle().deploy(_fields(service))


def start(name: str, changes: Mapping[str, Any] | None = None) -> Any:
    """Start another run of a service, with some fields changed for this run only; returns the :class:`Run`.

    Raises SpecificationError with every problem (nothing is started then), and RunError. ::

        begun = thresher.start("digits", {"instances": 2})
    """
    from deployments.services.specification import absolute

    return _lifecycle().start(name, absolute(changes or {}, Path.cwd()))


def wait(run: Execution | Service | str) -> Any:
    """Wait until a run, or the last run of a service, has ended; returns the :class:`Run`.

    ``run`` is what :func:`start`, :func:`deploy` or :func:`show` returned, or a run's id. Raises SpecificationError if
    there is no such run, and RunError. ::

        finished = thresher.wait(thresher.start("digits"))
        print(finished.status, finished.done, finished.failed)
    """
    last = getattr(run, "last_run", run)
    return _lifecycle().wait_for(str(getattr(last, "id", last)))


def stop(name: str, *, wait: bool = False) -> Any:
    """Stop a service's runs: instances end within seconds, and every item has its line in the output manifest.

    With ``wait``, return once they have ended. Returns the :class:`Service`. Raises SpecificationError if no run is
    active, and RunError. ::

        thresher.stop("digits", wait=True)
    """
    return _lifecycle().stop(name, wait=wait)


def show(name: str) -> Any:
    """A service with its status and its last run, as a :class:`Service`.

    Raises SpecificationError if it does not exist, and RunError. ::

        service = thresher.show("digits")
        print(service.status, service.last_run.manifest)
    """
    _lifecycle()
    from deployments.services import overview

    return overview.show(name)


def results(of: str | os.PathLike[str] | Execution) -> Results:
    """The outcome of each item of an earlier run: of a :class:`Run`, or of the output manifest at an address.

    Raises SpecificationError if it is no output manifest, and RunError if it is missing or damaged. ::

        for item in thresher.results("out/infer-result-0d5c7e4e-6f1b-4b1f-8a53-0c1f2f7a9d10.manifest"):
            print(item.source, item.succeeded)
    """
    from .outcomes import Results

    if isinstance(of, str | os.PathLike):
        return Results(os.fspath(of))
    if not of.manifest:
        expected = f"has published no output manifest (its status is {of.status})"
        raise SpecificationError([Problem("RUN", of.id, expected)])
    return Results(of.manifest)


def _lifecycle() -> Any:
    from tasks.prefect_side.prefect_import import import_prefect

    import_prefect()
    from deployments.services import lifecycle

    return lifecycle


def _fields(service: Specification) -> dict[str, Any]:
    from deployments.services.specification import absolute, read_specification

    if isinstance(service, BatchService):
        service = service.model_dump(mode="json", by_alias=True)
    return absolute(service, Path.cwd()) if isinstance(service, Mapping) else read_specification(Path(service))


def _result(found: Any) -> Result:
    from .outcomes import Result

    return Result(**found.model_dump())


async def _awaited_result(running: Any) -> Result:
    return _result(await running)
