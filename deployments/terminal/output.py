"""Output of all commands: results on standard output, messages on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

from cyclopts import Parameter
from rich.console import Console

from tasks.domain.errors import RunError
from tasks.domain.masking import masked
from tasks.domain.plain_text import plain_block, plain_json, plain_line, plain_lines, without_halves
from tasks.prefect_side.environment import set_for_command
from tasks.prefect_side.internals import EVENTS_LOGGER
from tasks.prefect_side.prefect_import import import_prefect

P = ParamSpec("P")
R = TypeVar("R")

Spec = Annotated[Path, Parameter(help="The service specification, a YAML file.")]
Name = Annotated[str, Parameter(help="The service's name.")]
Overrides = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative=(), help="Override a field: field=value. May be given several times."),
]
Merge = Annotated[
    bool,
    Parameter(negative=(), help="With the SUCCESSFUL lines of the earlier run: the new output manifest is complete."),
]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print the result as JSON.")]


def error_console() -> Console:
    """A console on standard error."""
    return Console(stderr=True)


def say(text: str) -> None:
    """Print a message on standard error: no escape sequences, rich markup or known secrets; further lines are indented.

    The only way in which commands write messages.
    """
    error_console().print(plain_block(masked(text)), highlight=False, soft_wrap=True, markup=False, emoji=False)


def quiet_prefect() -> None:
    """Limit Prefect's own log to errors, unless the user has set its level, and import Prefect."""
    set_for_command()
    import_prefect()
    logging.getLogger(EVENTS_LOGGER).setLevel(logging.ERROR)


def quietly(command: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a command that uses the Prefect server: see :func:`quiet_prefect`."""

    @wraps(command)
    def quiet(*arguments: P.args, **named: P.kwargs) -> R:
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


def print_result(found: Any, rows: Sequence[Sequence[object]], *, as_json: bool) -> None:
    """Write a model, or a list of models: as JSON, or as a table of ``rows``."""
    if as_json:
        several = isinstance(found, list)
        print_json([one.model_dump(mode="json") for one in found] if several else found.model_dump(mode="json"))
    else:
        print_rows(rows)
