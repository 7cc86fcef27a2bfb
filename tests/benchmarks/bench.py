"""Compares the product with hand-written floors and with peers, and prints the table of targets.

    python tests/benchmarks/bench.py [--quick] [--only NAME ...] [--json FILE] [--markdown FILE] [--chart FILE]

Rounds are interleaved and each contestant has a fresh process; a ratio is that of a round's two figures, and the table
has the median with the lowest and the highest. Times on shared machines say little, ratios measured side by side do.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from case import Case
from room import Room
from table import Row, contestants_markdown, markdown

FILES = (
    "case_model_server",
    "case_files",
    "case_csv",
    "case_fixed_cost",
    "case_concurrency",
    "case_size",
    "case_instances",
    "peers",
)
QUICK_SHARE = 0.1
QUICK_ROUNDS = 2


def all_cases() -> list[Case]:
    """Every case of every file, in the order of the table of targets."""
    cases: list[Case] = []
    for name in FILES:
        if find_spec(name) is not None:
            module = importlib.import_module(name)
            cases += module.cases() if hasattr(module, "cases") else module.CASES
    return cases


def parse(cases: Sequence[Case]) -> argparse.Namespace:
    """The command line."""
    names = "\n".join(f"  {case.name:<14} {case.what}" for case in cases)
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\ncases:\n{names}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the items, two rounds")
    parser.add_argument("--share", type=float, help="this share of the items (default: 1)")
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in cases], metavar="NAME", help="cases to run")
    parser.add_argument("--json", type=Path, help="write all figures of all rounds there")
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    parser.add_argument("--chart", type=Path, help="write the chart of items/s and memory there (SVG; case size)")
    parser.add_argument("--scratch", type=Path, help="where data and results lie; default: in memory")
    options = parser.parse_args()
    options.share = options.share or (QUICK_SHARE if options.quick else 1.0)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else 3)
    options.only = options.only or [case.name for case in cases]
    if options.chart and "size" not in options.only:
        parser.error("--chart is of the case size")
    return options


def main(cases: Sequence[Case] | None = None) -> None:
    """Run cases (all of them by default) and print the tables."""
    cases = all_cases() if cases is None else cases
    options = parse(cases)
    rows: list[Row] = []
    with Room(share=options.share, rounds=options.rounds, scratch=options.scratch) as room:
        for case in cases:
            if case.name in options.only:
                started = time.monotonic()
                rows += case.run(room)
                print(f"{case.name} took {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        played = room.played
    text = f"{markdown(rows)}\n{contestants_markdown(played)}"
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.json:
        options.json.write_text(json.dumps({"table": [row.as_json() for row in rows], "rounds": played}, indent=1))
    if options.chart:
        from chart import size_chart

        options.chart.write_text(size_chart(played["size"]))


if __name__ == "__main__":
    main()
