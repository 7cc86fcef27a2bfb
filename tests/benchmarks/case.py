"""What a case of the benchmark is, and what a file of cases does when it is run as a program.

A file `case_*.py` holds the cases of one subject, and the hand-written floors that they are measured by. Each has

    CASES = [Case("files", "what is measured, in a few words", run)]
    FLOORS = {"local": local}                       # functions of texts that return figures

    def run(room: Room) -> list[Row]: ...           # measures with `room.rounds`, returns the table's rows

    if __name__ == "__main__":
        program(CASES, FLOORS)

`python case_files.py [options of bench.py]` runs its cases; `python case_files.py floor local ARGUMENTS` runs a floor
in this process and prints its figures, so that floors are measured as bare as they are: what this module imports is all
that is imported beside them. `peers.py` may have the same `CASES`, or a function `cases()` that returns them; bench.py
takes them in if the file is there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data import own_figures

if TYPE_CHECKING:
    from room import Room
    from table import Row

Figures = dict[str, Any]
"""What one contestant did in one round: seconds, items, rate (items or rows a second), cpu_seconds, peak_rss_mb, and
what else its case needs."""

Floor = Callable[..., Figures]


@dataclass(frozen=True)
class Case:
    """One subject: `run` plays all its rounds in a room and returns its rows of the table."""

    name: str
    """What `--only` calls it."""
    what: str
    run: Callable[[Room], list[Row]]


def program(cases: Sequence[Case], floors: Mapping[str, Floor]) -> None:
    """What a file of cases does: one of its floors in this process, or its cases."""
    if sys.argv[1:2] == ["floor"]:
        figures = floors[sys.argv[2]](*sys.argv[3:])
        print(json.dumps(figures | own_figures()))
        return
    from bench import main

    main(cases)
