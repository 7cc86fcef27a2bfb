"""``thresher models``: model packages, and the store of their versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from deployments.terminal.output import AsJson, print_json, print_rows, print_text, say
from tasks.domain.errors import Problem, SpecificationError

if TYPE_CHECKING:
    from deployments.models.trial import Trial
    from tasks.clients.packages.model_store import ModelVersion

ModelVersionOption = Annotated[
    str | None, Parameter(name="--model-version", help="The version of a model in the store; default: the newest.")
]

app = App(
    name="models",
    help_format="markdown",
    help="Model packages: write, check and try them; register versions of them in the model store.",
)


@app.command
def register(
    package: str,
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
        The model package, a folder with config.json: a local path, an s3:// or an obs:// address.
    """
    from deployments.models.versions import register as register_model

    made = register_model(package, name, model_version)
    if made.reason:
        say(made.reason)
    if as_json:
        print_json(_as_json(made))
    else:
        print_text(f"{made.model} {made.version} {made.state}\n")
    return 0 if made.state == "Normal" else 1


@app.command
def init(
    folder: str,
    /,
    *,
    to: Annotated[Path | None, Parameter(help="With a model: the folder to write; default: the model's name.")] = None,
    kind: Annotated[
        Literal["table", "file", "run.sh"] | None,
        Parameter(help="table (rows as JSON; the default), file (one per request), or run.sh (a server of its own)."),
    ] = None,
) -> int:
    """Write a model package that runs as it is, an example of its input and the specification of a service.

    Prints the commands to call next.

    Parameters
    ----------
    folder
        A new or an empty folder; or a bare model (a file of ONNX, scikit-learn, XGBoost or LightGBM, the folder of an
        MLflow model or a saved_model.pb, on any storage), whose package is written.
    """
    if kind is None and (to is not None or _is_model(folder)):
        from deployments.models.bare_package import init_from_model

        made = init_from_model(folder, to)
    else:
        from deployments.models.new_package import init_package

        if to is not None:
            raise SpecificationError([Problem("--kind", kind, "is for a new package; --to for that of a model")])
        made = init_package(Path(folder), kind=kind)
    say(f"{made.folder}: wrote {', '.join(made.files)}. Next:")
    print_text("".join(f"{line}\n" for line in made.next))
    return 0


def _is_model(given: str) -> bool:
    path = Path(given)
    return "://" in given or path.is_file() or any((path / name).is_file() for name in ("MLmodel", "saved_model.pb"))


@app.command
def check(path: str, /, *, model_version: ModelVersionOption = None, as_json: AsJson = False) -> int:
    """Check a package without starting it: what is wrong, with file and line, what is only odd, what serves it.

    Exit code 1 if it cannot be served.

    Parameters
    ----------
    path
        The model package: a folder, an s3:// or obs:// address, or the name of a model in the store.
    """
    from deployments.models.check import as_json as plain
    from deployments.models.check import as_text, check_package

    found = check_package(path, model_version)
    if as_json:
        print_json(plain(found))
    else:
        print_text(as_text(found))
    return 0 if found.usable else 1


@app.command(name="try")
def try_once(
    path: str,
    /,
    *,
    row: Annotated[tuple[str, ...], Parameter(negative=(), help="Cells of a row, as in CSV: 5.1,3.5,1.4,0.2.")] = (),
    file: Annotated[tuple[str, ...], Parameter(negative=(), help="A file to send, or a table with rows.")] = (),
    request_path: Annotated[str | None, Parameter(help="The API's url; default: the only one, else /.")] = None,
    model_version: ModelVersionOption = None,
    timeout_minutes: Annotated[float, Parameter(help="For the start of the model server.")] = 20,
    as_json: AsJson = False,
) -> int:
    """Start a package once, send it a row or a file as a service would, and show the request and the answer.

    Exit code 1, with the model server's last output, if it does not start or does not answer.

    Parameters
    ----------
    path
        The model package: a folder, an s3:// or obs:// address, or the name of a model in the store.
    """
    from deployments.models.new_package import run_command
    from deployments.models.trial import Tried, try_package

    tried = Tried(row, file)
    made = try_package(
        path, tried, version=model_version, request_path=request_path, seconds=60 * max(timeout_minutes, 0.01)
    )
    code = print_trial(made, as_json=as_json)
    if not code and (following := run_command(path)):
        say(f"Next: {following}")
    return code


def print_trial(made: Trial, *, as_json: bool) -> int:
    """Write requests and answers; the exit code."""
    from deployments.models.trial import as_json as plain
    from deployments.models.trial import as_text

    for warning in made.warnings:
        say(f"warning: {warning}")
    if as_json:
        print_json(plain(made))
    else:
        print_text(as_text(made))
    for error in dict.fromkeys(
        one.error if one.method else f"{one.item}: {one.error}" for one in made.exchanges if one.error
    ):
        say(error)
    if made.output:
        say(f"The model server: {made.output}")
    return 0 if made.succeeded else 1


@app.command(name="list")
def list_models(name: str | None = None, /, *, as_json: AsJson = False) -> int:
    """List the versions of the models in the store, with their states.

    Parameters
    ----------
    name
        Only this model.
    """
    from deployments.models.versions import versions

    found = versions(name)
    if as_json:
        print_json([_as_json(one) for one in found])
    else:
        print_rows(
            [
                (one.model, one.version, one.state, one.source, one.reason.splitlines()[0] if one.reason else "")
                for one in found
            ]
        )
    return 0


@app.command
def show(name: str, version: str | None = None, /, *, as_json: AsJson = False) -> int:
    """Show a version of a model: its state, where it is, and the hash of its content.

    Parameters
    ----------
    name
        The model.
    version
        Default: the one that a service takes, the newest in the Normal state.
    """
    from deployments.models.versions import version_of

    found = version_of(name, version)
    if as_json:
        print_json(_as_json(found))
    else:
        rows = [("model", found.model), ("version", found.version), ("source", found.source), ("state", found.state)]
        rows += [("reason", found.reason), ("created", f"{found.created_at:%Y-%m-%d %H:%M:%S %Z}")]
        rows += [("folder", found.folder), ("files", f"{len(found.files):,}"), ("content", found.content)]
        print_rows([row for row in rows if row[1]])
    return 0


@app.command
def delete(name: str, version: str | None = None, /, *, as_json: AsJson = False) -> int:
    """Delete a version of a model from the store, or all its versions. Runs that use it now will fail.

    Parameters
    ----------
    name
        The model.
    version
        Default: all of them.
    """
    from deployments.models.versions import delete as delete_versions

    found = delete_versions(name, version)
    if as_json:
        print_json([_as_json(one) for one in found])
    else:
        print_text("".join(f"{one.model} {one.version} deleted\n" for one in found))
    return 0


@app.command
def subscribe(
    address: str,
    /,
    *,
    remove: Annotated[bool, Parameter(negative=(), help="End the subscription.")] = False,
    as_json: AsJson = False,
) -> int:
    """Use the models of another store, which is only read. Services name them with model_source: my-subscriptions.

    Parameters
    ----------
    address
        The other store's folder: a local path, an s3:// or an obs:// address.
    """
    from deployments.models.versions import subscribe as subscribe_to

    found = subscribe_to(address, remove=remove)
    if as_json:
        print_json([_as_json(one) for one in found])
    else:
        print_rows([(one.model, one.version, one.state) for one in found])
    return 0


def _as_json(version: ModelVersion) -> dict[str, Any]:
    return {**version.model_dump(mode="json", exclude={"files"}), "content": version.content}


@app.command
def prune(
    *,
    days: Annotated[float, Parameter(help="What was used in the last days stays.")] = 30,
    everything: Annotated[bool, Parameter(name="--all", negative=(), help="Remove all that is not in use.")] = False,
    dry_run: Annotated[bool, Parameter(negative=(), help="Remove nothing, only say what would be removed.")] = False,
    as_json: AsJson = False,
) -> int:
    """Remove environments and copies of packages from the cache that no process uses and that were not used lately.

    Instances that run keep theirs. What is removed is made again when it is needed.
    """
    from dataclasses import asdict

    from tasks.clients.packages.uses import prune as prune_cache
    from tasks.domain.settings import read_settings

    if not 0 <= days < 1e6:
        raise SpecificationError([Problem("--days", days, "should be a number of days from 0 on")])
    cache = read_settings().cache
    found = prune_cache(cache, 0 if everything else days * 24 * 3600, dry=dry_run)
    for path in found.failed:
        say(f"warning: {path} could not be removed")
    if as_json:
        print_json({"cache": str(cache), **asdict(found)})
    else:
        gone = "would be removed" if dry_run else "removed"
        recent = "" if everything else f", {found.recent:,} used in the last {days:g} days"
        print_text(
            f"{cache}: {len(found.removed):,} {gone}, {found.bytes:,} bytes; kept: {found.in_use:,} in use{recent}\n"
        )
    return 1 if found.failed else 0
