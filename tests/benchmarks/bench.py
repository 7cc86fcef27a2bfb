"""Compares the product with its hand-written floors, in one run: rounds interleaved, each in a fresh process.

    python tests/benchmarks/bench.py [--quick] [--rounds 3] [--only local|s3] [--floors-only] [--json FILE]

The ratio of a round is the product's rate by the floor's rate of the same round; the table has the median ratio with
the lowest and the highest. Times on shared machines say little, ratios measured side by side do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from benchmarks import data  # noqa: E402
from fakes.model_server import FakeModelServer  # noqa: E402
from fakes.s3_server import S3Server  # noqa: E402
from obstore.store import S3Store  # noqa: E402

Figures = dict[str, Any]
SHARED_MEMORY = Path("/dev/shm")  # a disk that others use makes rounds incomparable


@dataclass(frozen=True)
class Case:
    """One row of the table of targets: `floor` is what the product is compared with, `others` stand beside it."""

    name: str
    items: int
    floor: str
    others: tuple[str, ...]
    target: float


CASES = (
    Case("local", 20_000, "local", (), 0.8),
    Case("s3", 5_000, "s3", ("s3fs",), 0.8),
)


def measure(command: list[str], environment: dict[str, str]) -> Figures:
    """Run one contestant in a fresh process; the JSON object it prints last."""
    line = [sys.executable, *command]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def contestants(case: Case, floors_only: bool) -> list[str]:
    """Who runs in each round, in the order of the first round."""
    return [case.floor, *([] if floors_only else ["product"]), *case.others]


def run_case(
    case: Case, scratch: Path, s3: S3Server, url: str, options: argparse.Namespace
) -> dict[str, list[Figures]]:
    """All rounds of one case. The order turns round by round, so that nobody always goes first."""
    items = max(200, case.items // 10) if options.quick else case.items
    source = make_input(case, items, scratch, s3)
    figures: dict[str, list[Figures]] = {name: [] for name in contestants(case, options.floors_only)}
    for number in range(options.rounds):
        names = list(figures)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            program = "product.py" if name == "product" else "floors.py"
            output = f"s3://bench-out/{name}-{number}" if case.name == "s3" else str(scratch / f"out-{name}-{number}")
            arguments = [source, output, url + "/"] if name != "product" else [source, output, url]
            command = [str(HERE / program), *([] if name == "product" else [name]), *arguments]
            home = scratch / f"prefect-{case.name}-{number}"
            result = measure(command, os.environ | s3.environment() | {"PREFECT_HOME": str(home)})
            if result["items"] != items:
                raise RuntimeError(f"{name} did {result['items']} of {items} items")
            figures[name].append(result)
            print(f"{case.name} round {number + 1} {name}: {result['rate']:,.0f} items/s", file=sys.stderr)
            shutil.rmtree(s3.folder / "bench-out" / output.rpartition("/")[2] if case.name == "s3" else output)
    return figures


def make_input(case: Case, items: int, scratch: Path, s3: S3Server) -> str:
    """The input of a case, outside all clocks; its address."""
    if case.name == "local":
        data.make_local(scratch / "in", items)
        return str(scratch / "in")
    for bucket in ("in", "out"):
        s3.make_bucket(f"bench-{bucket}")
    store = S3Store.from_url(
        "s3://bench-in",
        endpoint=s3.endpoint,
        access_key_id=s3.access_key,
        secret_access_key=s3.secret_key,
        client_options={"allow_http": True},
    )
    asyncio.run(data.make_objects(store, "items", items))
    return "s3://bench-in/items"


def rows(case: Case, figures: dict[str, list[Figures]]) -> list[dict[str, Any]]:
    """The table's rows of one case; each ratio is to the floor of the same round."""
    floor = [round_["rate"] for round_ in figures[case.floor]]
    table = []
    for name, rounds in figures.items():
        ratios = [round_["rate"] / base for round_, base in zip(rounds, floor, strict=True)]
        row = {
            "case": case.name,
            "who": name,
            "items": rounds[0]["items"],
            "ratio": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "target": case.target if name == "product" else None,
        }
        for figure in ("rate", "seconds", "cpu_seconds", "peak_rss_mb"):
            row[figure] = statistics.median(round_[figure] for round_ in rounds)
        table.append(row)
    return table


def markdown(table: list[dict[str, Any]]) -> str:
    """The table for a reader."""
    lines = [
        "| case | who | items | items/s | ratio to floor (min - max) | target | CPU ms/item | peak MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table:
        ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f} - {row['ratio_max']:.2f})"
        cpu = 1000 * row["cpu_seconds"] / row["items"]
        lines.append(
            f"| {row['case']} | {row['who']} | {row['items']:,} | {row['rate']:,.0f} | {ratio} | {row['target'] or ''} "
            f"| {cpu:.2f} | {row['peak_rss_mb']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the items")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[case.name for case in CASES])
    parser.add_argument("--floors-only", action="store_true", help="leave the product out")
    parser.add_argument("--json", type=Path, help="write all figures of all rounds there")
    parser.add_argument("--scratch", type=Path, help="where data and results lie; default: in memory")
    options = parser.parse_args()
    table: list[dict[str, Any]] = []
    every: dict[str, Any] = {}
    memory = options.scratch or (SHARED_MEMORY if SHARED_MEMORY.is_dir() else None)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=memory) as folder:
        scratch = Path(folder)
        with S3Server(scratch / "s3", dir_cache="5m") as s3, FakeModelServer() as model:
            for case in CASES:
                if options.only in {None, case.name}:
                    every[case.name] = run_case(case, scratch, s3, model.url, options)
                    table += rows(case, every[case.name])
    print(markdown(table))
    if options.json:
        options.json.write_text(json.dumps({"table": table, "rounds": every}, indent=1))


if __name__ == "__main__":
    main()
