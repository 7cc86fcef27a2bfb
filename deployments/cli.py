"""The command line. Standard output carries the result only, standard error the talk."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from deployments.stopping import stop_on_signals
from tasks.domain.errors import RunError, SpecificationError, ThresherError

app = App(
    name="thresher",
    help="Batch inference services on Prefect: every input file gets one result file and one manifest line.",
    version=lambda: version("thresher"),
    suppress_keyboard_interrupt=False,  # main() says what a stopped run has left behind
    help_epilogue="Exit codes: 0 every item succeeded; 1 the run ended with failed items, or failed; "
    "2 the specification or the call is wrong.",
)
models = App(name="models", help="The model store: register versions of models, and list them.")
app.command(models)

Overrides = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative=(), help="Override a field: field=value. May be given several times."),
]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print the result as JSON.")]


def _talk() -> Console:
    return Console(stderr=True)


def _print(text: str) -> None:
    """Write a result. Raises RunError if nobody takes it (a closed pipe, a full disk)."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python tries once more when it ends
        raise RunError(f"Standard output cannot be written: {error.strerror}.") from None


def _print_json(value: Any) -> None:
    _print(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@app.command
def run(
    spec: Path,
    /,
    *,
    overrides: Overrides = (),
    as_json: AsJson = False,
    verbose: Annotated[bool, Parameter(negative=(), help="Show Prefect's log too.")] = False,
) -> int:
    """Run one service now, in this process. Prints the address of the output manifest.

    Runs on an embedded Prefect server, or against the one that PREFECT_API_URL names.

    Parameters
    ----------
    spec
        The service specification, a YAML file.
    """
    from deployments.run_command import exit_code, run_service, talk_of
    from deployments.specification import read_specification

    talk = _talk()
    result = run_service(read_specification(spec, overrides), talk, verbose=verbose)
    talk_of(result, talk)
    if as_json:
        _print_json(result.model_dump(mode="json"))
    else:
        _print(f"{result.manifest}\n")
    return exit_code(result)


@app.command
def validate(spec: Path, /, *, overrides: Overrides = (), as_json: AsJson = False) -> int:
    """Check a service without running it: every problem at once, else plan, mapping and first request.

    Parameters
    ----------
    spec
        The service specification, a YAML file.
    """
    from deployments.preview import preview_text
    from deployments.specification import read_specification
    from deployments.validate_command import validate_service

    talk = _talk()
    found = validate_service(read_specification(spec, overrides))
    for warning in found["warnings"]:
        talk.print(f"warning: {warning}", highlight=False, soft_wrap=True, markup=False)
    if as_json:
        _print_json(found)
    else:
        _print(preview_text(found))
    return 0


@models.command
def register(
    package: Path,
    /,
    *,
    name: Annotated[str | None, Parameter(help="Name of the model; default: the folder's name.")] = None,
    model_version: Annotated[str, Parameter(name="--model-version", help="The version, such as 0.0.1.")] = "0.0.1",
    as_json: AsJson = False,
) -> int:
    """Register a version of a model: check config.json, copy the package, start it once, ask its health.

    Parameters
    ----------
    package
        The model package, a folder with config.json.
    """
    from deployments.models_command import register as register_model

    made = register_model(package, name or package.resolve().name, model_version)
    if made.reason:
        _talk().print(made.reason, highlight=False, soft_wrap=True, markup=False)
    if as_json:
        _print_json(made.model_dump(mode="json"))
    else:
        _print(f"{made.model} {made.version} {made.state}\n")
    return 0 if made.state == "Normal" else 1


@models.command(name="list")
def list_models(name: str | None = None, /, *, as_json: AsJson = False) -> int:
    """List the versions of the models in the store, with their states.

    Parameters
    ----------
    name
        Only this model.
    """
    from deployments.models_command import versions

    found = versions(name)
    if as_json:
        _print_json([one.model_dump(mode="json") for one in found])
    else:
        for one in found:
            _print(f"{one.model}\t{one.version}\t{one.state}\t{one.reason.splitlines()[0] if one.reason else ''}\n")
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command ``thresher``."""
    talk = _talk()
    stop_on_signals()
    try:
        code = app(arguments, exit_on_error=False, print_error=True, result_action="return_value", console=None)
    except CycloptsError:
        code = 2
    except ThresherError as error:
        talk.print(str(error), highlight=False, soft_wrap=True, markup=False)
        code = 2 if isinstance(error, SpecificationError) else 1
    except KeyboardInterrupt as stopped:
        talk.print(str(stopped) or "Stopped before the end.", highlight=False, soft_wrap=True, markup=False)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
