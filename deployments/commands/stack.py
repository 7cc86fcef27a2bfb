"""``thresher up``: the local stack."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def up(*, port: Annotated[int, Parameter(help="Port of the Prefect server on 127.0.0.1.")] = 4200) -> int:
    """Start a local stack: a Prefect server, the resource pools, the console, a worker per local pool.

    Prints the address of the user interface and runs until Ctrl-C, which stops everything. Called again while it runs,
    it applies the pool files again and prints the address.
    """
    from deployments.stack import run_stack

    return run_stack(port)
