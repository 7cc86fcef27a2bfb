"""``thresher run``, ``validate`` and ``up``: a service without a server, or before it is deployed; the local stack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from deployments.terminal.output import AsJson, Merge, Overrides, Spec, print_json, print_text, say
from tasks.clients.surroundings.startup import importing
from tasks.domain.errors import SpecificationError


def run(
    spec: Spec,
    /,
    *,
    overrides: Overrides = (),
    retry_failed: Annotated[
        str | None, Parameter(help="Output manifest of an earlier run: only its FAILED items are processed.")
    ] = None,
    merge: Merge = False,
    as_json: AsJson = False,
    verbose: Annotated[bool, Parameter(negative=(), help="Show Prefect's log too.")] = False,
    resume: Annotated[
        str | None, Parameter(help="Id of a run of this command that was stopped or killed: it goes on where it was.")
    ] = None,
    offline: Annotated[bool, Parameter(negative=(), help="Install the model's packages from the cache only.")] = False,
) -> int:
    """Run one service now, in this process. Prints the address of the output manifest.

    Runs on an embedded Prefect server, or against the one that PREFECT_API_URL names. A run that is resumed repeats
    nothing that was finished; it is refused if model, mapping, input or output have changed since it began.
    """
    with importing():
        from deployments.one_run.shown_run import show_result, show_run
        from deployments.services.specification import absolute, read_specification

    command = ["thresher", "run", str(spec), *(part for one in overrides for part in ("--set", one))]
    fields = read_specification(spec, overrides)
    if retry_failed is not None:
        fields |= absolute({"failed_of": retry_failed}, Path.cwd())
        command += ["--retry-failed", retry_failed]
    if merge:
        fields["merge"] = True
        command += ["--merge"]
    if offline:
        os.environ["THRESHER_OFFLINE"] = "true"  # for the processes of its instances, too
        command += ["--offline"]
    result = show_run(fields, verbose=verbose, resume=resume, command=command)
    show_result(result)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_text(f"{result.manifest}\n")
    return 1 if result.failure or result.failed else 0


def validate(spec: Spec, /, *, overrides: Overrides = (), as_json: AsJson = False) -> int:
    """Check a service without running it: every problem at once, else plan, mapping and first request.

    Items are listed, and some of them looked at. If no item could be sent the service is refused, too (exit code 2).
    """
    with importing():
        from deployments.one_run.validation import preview_text, validate_service
        from deployments.services.specification import read_specification

    found, problems = validate_service(read_specification(spec, overrides))
    for warning in found["warnings"]:
        say(f"warning: {warning}")
    if as_json:
        print_json(found)
    else:
        print_text(preview_text(found))
    if problems:
        raise SpecificationError(problems)
    return 0


def try_once(
    spec: Spec,
    /,
    *,
    overrides: Overrides = (),
    items: Annotated[int, Parameter(name=("--items", "-n"), help="Items to send, or rows of tables.")] = 3,
    as_json: AsJson = False,
) -> int:
    """Send the first items or rows of a service to one instance, and show requests and answers. Nothing is written.

    Exit code 1 if an item is refused, or the model server does not start or does not answer.
    """
    with importing():
        from deployments.commands.models import print_trial
        from deployments.one_run.service_trial import try_service
        from deployments.services.specification import read_specification

    made = try_service(read_specification(spec, overrides), items)
    return print_trial(made, as_json=as_json)


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
