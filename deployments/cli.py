"""The command line. Results go to standard output, all other messages to standard error."""

from __future__ import annotations

import gc
import sys
from contextlib import nullcontext

from cyclopts import App, CycloptsError

from deployments.commands import models, pools, running, services
from deployments.terminal import door
from tasks.clients.processes.process_privacy import hide_memory


def _version() -> str:
    from importlib.metadata import version

    return version("thresher")


app = App(
    name="thresher",
    help_format="plaintext",  # importing a Markdown parser takes a while; only commands have longer texts
    help="Batch inference services on Prefect: every input file gets one result file and one manifest line.",
    version=_version,
    suppress_keyboard_interrupt=False,  # door.guarded() reports the state of a stopped run
    help_epilogue="Exit codes: 0 every item succeeded; 1 the run ended with failed items, or failed; "
    "2 the specification, the call or its environment is wrong. Every command takes --verbose: it shows an error's "
    "trace.",
)
app.command(running.run, help_format="markdown")
app.command(running.validate, help_format="markdown")
app.command(running.try_once, name="try", help_format="markdown")
app.command(running.up, help_format="markdown")
services.register(app)
app.command(pools.app)
app.command(models.app)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command ``thresher``."""
    door.usable_streams()
    door.usable_temporary_folder()
    hide_memory()
    door.stop_on_signals()
    given = list(sys.argv[1:] if arguments is None else arguments)
    verbose = door.take_verbose(given)
    if not verbose:
        door.quiet_libraries()
    with nullcontext() if verbose else door.own_standard_error():
        code = door.guarded(lambda: _call(given), verbose=verbose)
    gc.freeze()  # the memory is freed as a whole: searching Prefect's objects at exit takes 0.3 s
    sys.exit(code)


def _call(arguments: list[str]) -> int:
    try:
        code = app(arguments, exit_on_error=False, print_error=True, result_action="return_value", console=None)
    except CycloptsError:
        return door.REFUSED
    return code if isinstance(code, int) else 0
