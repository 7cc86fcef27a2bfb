"""Cost and memory over the number of items: input manifests of up to a million lines.

Each line names one of a few tiny local files, and the model answers at once, so that what is measured is what a run
costs an item and what it keeps of it. There is no floor: each size is compared with the one ten times smaller.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from case import Case, Figures, program

if TYPE_CHECKING:
    from room import Room
    from table import Row

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
FILES = 100
ITEM_BYTES = 16
PHASES = ("plan", "infer", "publish")


def make_manifest(path: Path, folder: Path, lines: int) -> None:
    """Write an input manifest whose lines name the files of `folder` in turn."""
    sources = [json.dumps({"source": str(file)}) + "\n" for file in sorted(folder.iterdir())]
    with path.open("w") as manifest:
        for number in range(lines):
            manifest.write(sources[number % len(sources)])


def run(room: Room) -> list[Row]:
    """Runs of several sizes, one round less than elsewhere; the rows compare the largest with a tenth of its items."""
    from data import make_local
    from room import check_whole
    from table import Target, at_most, compared, measured

    inputs = room.folder("in")
    make_local(inputs / "files", FILES, ITEM_BYTES)
    sizes = [room.items(size) for size in SIZES]

    def thresher(items: int) -> Figures:
        source = inputs / f"{items}.manifest"
        if not source.exists():
            make_manifest(source, inputs / "files", items)
        with room.output("thresher", files=items) as output:
            figures = room.thresher(str(source), output, room.model_url)
        check_whole(f"{items:,} items", figures, {"items": items, "results": items})
        seconds = sum(figures["phases"][phase] for phase in PHASES)
        return figures | {"seconds": seconds, "rate": items / seconds}

    who = {f"{items:,}": lambda _, items=items: thresher(items) for items in sizes}
    played = room.rounds("size", who, {}, rounds=max(1, room.round_count - 1))
    largest, tenth = sizes[-1], sizes[SIZES.index(SIZES[-1] // 10)]
    many, few = played[f"{largest:,}"], played[f"{tenth:,}"]
    times = f"{largest:,} items by {tenth:,}"
    peaks = [one["peak_rss_mb"] for one in many]
    plans = [1e6 * one["phases"]["plan"] / largest for one in many]
    cost = Target(10.5 * largest / tenth / 10, at_least=False)
    return [
        measured(f"peak memory of the flow's process, {largest:,} items in a manifest", peaks, at_most(500), "MB"),
        compared(f"peak memory, {times}", many, few, at_most(1.3), "peak_rss_mb"),
        measured(f"planning a line of a manifest of {largest:,}", plans, at_most(20), "us"),
        compared(f"time ({' + '.join(PHASES)}), {times}", many, few, cost, "seconds"),
    ]


CASES = [Case("size", "memory, planning and cost, up to a million items", run)]

if __name__ == "__main__":
    program(CASES, {})
