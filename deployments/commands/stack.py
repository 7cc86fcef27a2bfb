"""``thresher up``: the local stack."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def up(
    *, port: Annotated[int | None, Parameter(help="Port of the Prefect server on 127.0.0.1; 4200 if not given.")] = None
) -> int:
    """Start a local stack: a Prefect server, the resource pools, the deploy form, a worker for it and each local pool.

    Prints the address of the user interface and runs until Ctrl-C, which stops everything, active runs with a complete
    output manifest. Called again while it runs, on whatever port, it applies the pool files again and prints the
    address. A second stack needs a folder of its own: set THRESHER_STACK, for its commands too.
    """
    from deployments.local_stack.stack import run_stack

    return run_stack(port)
