"""``thresher models``: the model store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from deployments.terminal.output import AsJson, print_json, print_rows, print_text, say

app = App(name="models", help_format="markdown", help="The model store: register versions of models, and list them.")


@app.command
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
    from deployments.services.model_versions import register as register_model

    made = register_model(package, name or package.resolve().name, model_version)
    if made.reason:
        say(made.reason)
    if as_json:
        print_json(made.model_dump(mode="json", exclude={"files"}))
    else:
        print_text(f"{made.model} {made.version} {made.state}\n")
    return 0 if made.state == "Normal" else 1


@app.command(name="list")
def list_models(name: str | None = None, /, *, as_json: AsJson = False) -> int:
    """List the versions of the models in the store, with their states.

    Parameters
    ----------
    name
        Only this model.
    """
    from deployments.services.model_versions import versions

    found = versions(name)
    if as_json:
        print_json([one.model_dump(mode="json", exclude={"files"}) for one in found])
    else:
        print_rows(
            [(one.model, one.version, one.state, one.reason.splitlines()[0] if one.reason else "") for one in found]
        )
    return 0
