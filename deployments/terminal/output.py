"""Output of all commands: results on standard output, messages on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any, ParamSpec

from cyclopts import Parameter
from rich.console import Console

from deployments.terminal.talk import error_console, say_on
from tasks.domain.errors import RunError
from tasks.domain.plain_text import plain_json, plain_line, plain_lines, without_halves
from tasks.prefect_side.environment import set_for_command
from tasks.prefect_side.internals import EVENTS_LOGGER
from tasks.prefect_side.prefect_import import import_prefect

P = ParamSpec("P")

Overrides = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative=(), help="Override a field: field=value. May be given several times."),
]
Merge = Annotated[
    bool,
    Parameter(negative=(), help="With the SUCCESSFUL lines of the earlier run: the new output manifest is complete."),
]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print the result as JSON.")]


def talk() -> Console:
    """The console for messages: standard error."""
    return error_console()


def say(text: str) -> None:
    """Print a message on standard error, without control sequences and known secrets."""
    say_on(talk(), text)


def quiet_prefect() -> None:
    """Limit Prefect's own log to errors, unless the user has set its level, and import Prefect."""
    set_for_command()
    import_prefect()
    logging.getLogger(EVENTS_LOGGER).setLevel(logging.ERROR)


def quietly(command: Callable[P, int]) -> Callable[P, int]:
    """Decorator of a command that uses the Prefect server: see :func:`quiet_prefect`."""

    @wraps(command)
    def quiet(*arguments: P.args, **named: P.kwargs) -> int:
        quiet_prefect()
        return command(*arguments, **named)

    return quiet


def print_text(text: str) -> None:
    """Write a result, on a terminal without control sequences.

    Raises RunError if it cannot be written (a closed pipe, a full disk).
    """
    if sys.stdout.isatty():
        text = "\n".join(plain_lines(text))
    try:
        sys.stdout.write(without_halves(text))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at exit
        raise RunError(f"Standard output cannot be written: {error.strerror}.") from None


def print_json(value: Any) -> None:
    """Write a result as JSON."""
    print_text(plain_json(value, indent=2) + "\n")


def print_rows(rows: Sequence[Sequence[object]]) -> None:
    """Write a table: aligned columns on a terminal, separated by tabs elsewhere."""
    texts = [["" if cell is None else " ".join(plain_line(str(cell)).split()) for cell in row] for row in rows]
    if sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in texts
        ]
    else:
        lines = ["\t".join(row) for row in texts]
    print_text("".join(f"{line}\n" for line in lines))
