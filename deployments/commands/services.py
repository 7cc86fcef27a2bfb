"""``thresher deploy | list | show | edit | start | retry-failed | stop | delete | logs | schedule``: services."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from deployments.terminal.output import AsJson, Merge, Name, Overrides, Spec, print_result, print_text, quietly, say
from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.plain_text import plain_block, plain_json

if TYPE_CHECKING:
    from deployments.services.service import Execution, Service

Wait = Annotated[bool, Parameter(negative=(), help="Return when the run has ended; the exit code tells how.")]


def deploy(spec: Spec, /, *, overrides: Overrides = (), wait: Wait = False, as_json: AsJson = False) -> int:
    """Create a service on the Prefect server and start its first run. Prints its name, status and id."""
    import asyncio

    from deployments.services.lifecycle import create
    from deployments.services.specification import read_specification

    made = asyncio.run(create(read_specification(spec, overrides)))
    say(f"Created {made.name}: {made.page}")
    return _ended(made, made.last_run, wait=wait, as_json=as_json)


def list_services(*, as_json: AsJson = False) -> None:
    """List the services: name, status, pool, model, id, description."""
    from deployments.services.overview import list_services as listed

    found = listed()
    rows = [(one.name, one.status, one.resource_pool, one.model, one.id, one.description) for one in found]
    print_result(found, [*rows] or [()], as_json=as_json)


def show(
    name: Name,
    /,
    *,
    runs: Annotated[bool, Parameter(negative=(), help="Show its last runs, newest first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a service: status, id, paths, description, model, pool, flavor, instances, schedule, last run."""
    from deployments.services import overview

    if runs:
        found = overview.runs(name)
        rows = [(one.id, one.status, one.started, _counts(one), one.manifest) for one in found]
        print_result(found, [*rows] or [()], as_json=as_json)
    else:
        _print(overview.show(name), as_json)


def start(
    name: Name, /, *, overrides: Overrides = (), wait: Wait = False, as_json: AsJson = False,
    resume: Annotated[
        str | None, Parameter(help="Id of a run that ended before it was complete: it goes on where it was.")
    ] = None,
) -> int:  # fmt: skip
    """Start a service again, or resume one of its runs. --set changes fields for this run only."""
    from deployments.services import lifecycle, overview

    if resume is None:
        begun = lifecycle.start(name, overrides)
        say(f"Started {name}: {begun.page}")
    else:
        begun = lifecycle.resume(name, resume, overrides)
        say(f"Resumed {begun.id} of {name}: {begun.page}")
    return _ended(overview.show(name), begun, wait=wait, as_json=as_json)


def retry_failed(
    run: str,
    /,
    *,
    merge: Merge = False,
    output: Annotated[
        str | None, Parameter(help="Another output folder; default: that of the earlier run, where nothing is changed.")
    ] = None,
    overrides: Overrides = (),
    wait: Wait = False,
    as_json: AsJson = False,
) -> int:
    """Start a run of exactly the FAILED items of an earlier run, with its fields.

    Parameters
    ----------
    run
        The earlier run's id; `thresher show NAME --runs` shows it.
    """
    from deployments.services import lifecycle, overview
    from deployments.services.specification import absolute

    folder = absolute({} if output is None else {"output_path": output}, Path.cwd())
    begun = lifecycle.retry_failed(run, overrides, merge=merge, **folder)
    say(f"Started {begun.service}: {begun.page}")
    return _ended(overview.show(begun.service), begun, wait=wait, as_json=as_json)


def stop(
    name: Name,
    /,
    *,
    wait: Annotated[bool, Parameter(negative=(), help="Return when its runs have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a service's runs. The output manifest accounts for what was done; the rest is FAILED as stopped."""
    from deployments.services import lifecycle

    _print(lifecycle.stop(name, wait=wait), as_json)


def edit(
    name: Name,
    /,
    *,
    description: Annotated[str, Parameter(help="Up to 100 characters, none of ! < > = & \" '")],
    as_json: AsJson = False,
) -> None:
    """Change a service's description."""
    from deployments.services import lifecycle

    _print(lifecycle.edit(name, description=description), as_json)


def schedule(
    name: Name,
    /,
    *,
    cron: Annotated[str | None, Parameter(help="Five cron fields, as in '0 2 * * *'.")] = None,
    interval_minutes: Annotated[float | None, Parameter(help="Minutes between two starts.")] = None,
    timezone: Annotated[str, Parameter(help="Name of the time zone, as in Europe/Berlin.")] = "UTC",
    off: Annotated[bool, Parameter(negative=(), help="Do not start by itself any more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a service start by itself: by a cron line or at an interval."""
    from deployments.services import lifecycle

    if off + (cron is not None) + (interval_minutes is not None) != 1:
        expected = "give one of --cron, --interval-minutes and --off"
        raise SpecificationError([Problem("--cron", None, expected)])
    when = {"cron": cron, "interval_minutes": interval_minutes, "timezone": timezone}
    _print(lifecycle.schedule(name, None if off else when), as_json)


def delete(
    name: Name, /, *, force: Annotated[bool, Parameter(negative=(), help="Stop its active runs first.")] = False
) -> None:
    """Delete a service. What its runs have written stays."""
    from deployments.services import lifecycle

    for task_id in lifecycle.delete(name, force=force):
        say(
            f"Run {task_id} did not end in time: its worker does not respond. It was given up, perhaps without a "
            "manifest."
        )
    say(f"Deleted {name}.")


def logs(
    name: Name,
    /,
    *,
    follow: Annotated[bool, Parameter(negative=(), help="Go on until the run has ended.")] = False,
    run: Annotated[str | None, Parameter(help="Id of a run; default: the last one.")] = None,
    store: Annotated[bool, Parameter(negative=(), help="From the log store: the model server's output only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the log of a service's last run: Thresher's own lines, and what the model server prints."""
    import asyncio

    from deployments.services import service_logs

    if store and follow:
        expected = "cannot be had with --store; without it the log is followed as the Logs tab shows it"
        raise SpecificationError([Problem("--follow", None, expected)])

    async def print_lines() -> None:
        lines = service_logs.stored(name, run) if store else service_logs.lines(name, run, follow=follow)
        async for line in lines:
            print_text(f"{plain_json(line.model_dump(mode='json')) if as_json else plain_block(line.text)}\n")

    asyncio.run(print_lines())


def register(app: App) -> None:
    """Add these commands to the command line."""
    for command in (deploy, show, start, retry_failed, stop, edit, schedule, delete, logs):
        app.command(quietly(command), help_format="markdown")
    app.command(quietly(list_services), name="list", help_format="markdown")


def _ended(service: Service, begun: Execution | None, *, wait: bool, as_json: bool) -> int:
    from deployments.services.lifecycle import wait_for
    from deployments.services.overview import show as read
    from deployments.set_up.pools import show_pool

    if begun is not None and not show_pool(service.resource_pool).workers:
        say(f"No worker of {service.resource_pool} is running; the run waits for one.")
    if not wait or begun is None:
        print_result(service, [(service.name, service.status, service.id)], as_json=as_json)
        return 0
    try:
        ended: Execution = wait_for(begun.id)
    except KeyboardInterrupt:
        detail = f"The run goes on without this command: `thresher show {service.name}` shows it, `thresher stop "
        raise KeyboardInterrupt(f"{detail}{service.name}` stops it.") from None
    say(f"{ended.status}. {_counts(ended)}. {ended.message}".strip())
    if as_json:
        _print(read(service.name), as_json)
    else:
        print_text(f"{ended.manifest or ended.status}\n")
    return ended.exit_code


def _print(service: Service, as_json: bool) -> None:
    facts = [(name, value) for name, value in service.model_dump(mode="json").items() if name != "last_run"]
    if (last := service.last_run) is not None:
        facts += [("last run", last.id), ("started", last.started), ("ended", last.ended), ("items", _counts(last))]
        if last.model_version:
            facts.append(("version", last.model_version))
        facts += [("message", last.message), ("manifest", last.manifest), ("summary", last.summary), ("run", last.page)]
    print_result(service, facts, as_json=as_json)


def _counts(run: Execution) -> str:
    return f"{run.done:,} of {run.items:,} items done, {run.failed:,} FAILED" if run.items else "no items yet"
