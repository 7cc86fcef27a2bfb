"""Plans, shares out and publishes a run of a size that no machine here holds; nothing is inferred, nothing stored.

    python tests/benchmarks/simulate.py --items 10_000_000 --instances 1000

What plans, cuts, decides and publishes is the product. Played are: the listing, the instances (of ten, one is four
times slower and one starts late; of a hundred, two are lost and replaced) and their reports, which are made while they
are read, off the clock. Memory is what a phase has at its peak beyond what the process had before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

import cloudpickle  # noqa: E402
from benchmarks.simulated import Listing, Nowhere, PlayedFleet, PlayedInstance, name_of  # noqa: E402
from engine.runs import make_run  # noqa: E402

from tasks.clients.tables import plan_bytes, read_plan, report_bytes  # noqa: E402
from tasks.domain.item import Item  # noqa: E402
from tasks.domain.paths import result_name  # noqa: E402
from tasks.domain.run import Plan, Run, ShardDone, ShardRef  # noqa: E402
from tasks.domain.settings import Settings  # noqa: E402
from tasks.domain.shard import ITEM_WEIGHT, ShardBounds  # noqa: E402
from tasks.engine.planning import make_plan  # noqa: E402
from tasks.engine.publishing import publish_run  # noqa: E402
from tasks.engine.supply import Supply  # noqa: E402

Figures = dict[str, Any]
ITEM_BYTES = 40_960
ITEM_SECONDS = 0.05


@contextmanager
def measured(figures: Figures, phase: str) -> Iterator[None]:
    """Note the CPU seconds of a phase (a shared machine's clock says little), and its peak of memory."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
    before, started = _memory("RSS"), time.process_time()
    yield
    figures[f"{phase}_seconds"] = time.process_time() - started
    figures[f"{phase}_peak_mb"] = _memory("HWM") - before


def _memory(kind: str) -> float:
    (found,) = re.findall(rf"Vm{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found) / 1024


def plan(run: Run, items: int, output: Nowhere, figures: Figures) -> Plan:
    """The real plan of a folder of so many files."""
    with measured(figures, "plan"):
        made = asyncio.run(make_plan(run, Settings(), Listing(items, ITEM_BYTES), output))  # type: ignore[arg-type]
    figures["plan_bytes"] = output.bytes["plan.parquet"]
    figures["plan_json_bytes"] = output.bytes["plan.json"]
    return made


def arithmetic(run: Run, items: int, output: Nowhere) -> Plan:
    """The same plan, without its files but that of its largest shard."""
    shards: list[ShardRef] = []
    first = 0
    while first < items:
        count = min(ShardBounds().at(len(shards))[0], items - first)
        shards.append(ShardRef(number=len(shards), first_item=first, items=count, bytes=count * ITEM_BYTES))
        first += count
    largest = max(shards, key=lambda one: one.items)
    base = f"{run.service.input_path}/"
    names = [(number, name_of(number)) for number in range(largest.first_item, largest.end)]
    output.largest_plan = plan_bytes(
        [Item(number, base + name, base + name, ITEM_BYTES, result_name(name), "") for number, name in names],
        largest.owner(run.task_id),
    )
    return Plan(items=items, bytes=items * ITEM_BYTES, unknown_sizes=0, shards=tuple(shards))


def largest(output: Nowhere, shards: tuple[ShardRef, ...], figures: Figures) -> None:
    """What the largest shard costs the instance that works on it, and one that takes over a part."""
    shard = max(shards, key=lambda one: one.items)
    figures["largest_shard_items"] = shard.items
    with measured(figures, "largest_read"):
        supply = Supply(shard, read_plan(output.largest_plan, owner=shard.owner(output.task_id)))
    with measured(figures, "largest_hand_back"):
        supply.hand_back(0.5, 100)
    del supply
    part = (shard.end - shard.items // 100, shard.end)
    with measured(figures, "part_of_largest_read"):
        read_plan(output.largest_plan, *part, shard.owner(output.task_id))
    outcomes = output.outcomes(shard)
    with measured(figures, "largest_report"):
        report_bytes(*outcomes)


def share_out(run: Run, planned: Plan, count: int, figures: Figures) -> list[ShardDone]:
    """The real decisions on which instance works on what, and how often each is looked at."""
    chance = random.Random(count)
    weight = ITEM_WEIGHT + ITEM_BYTES
    instances = {f"tcp://10.0.0.{number}:8000": _instance(chance, weight) for number in range(count)}
    figures["ideal_seconds"] = _ideal(planned.items, list(instances.values()))
    fleet = PlayedFleet(run.service, planned, instances)
    with measured(figures, "sharing"):
        results = asyncio.run(fleet.decisions.direct(fleet))
    done = sorted(results, key=lambda one: one.shard.first_item)
    if [one.shard.first_item for one in done] != [0, *(one.shard.end for one in done)][:-1]:
        raise RuntimeError("the parts of the shards do not fit together")
    figures |= {
        "task_runs": fleet.gives, "hand_overs": len(done) - len(planned.shards), "taken_back": fleet.taken_back,
        "inferring_seconds": fleet.now, "efficiency": figures["ideal_seconds"] / fleet.now,
        "decisions_ms_a_round": 1000 * sum(fleet.rounds) / len(fleet.rounds),
        "decisions_longest_ms": 1000 * max(fleet.rounds),
        "decisions_share_of_a_core": sum(fleet.rounds) / fleet.now, "looks": fleet.looks,
    }  # fmt: skip
    return done


def _instance(chance: random.Random, weight: int) -> PlayedInstance:
    rate = chance.uniform(0.8, 1.2) / ITEM_SECONDS
    if chance.random() < 0.1:
        rate /= 4
    ready_at = chance.uniform(0, 300) if chance.random() < 0.1 else chance.uniform(0, 10)
    lost_at = chance.uniform(20, 600) if chance.random() < 0.02 else float("inf")
    return PlayedInstance(rate, weight, ready_at, lost_at)


def _ideal(items: int, instances: list[PlayedInstance]) -> float:
    """Seconds, if every instance worked from when it is ready until all end at once, and those lost never stopped."""
    low, high = 0.0, 1e9
    while high - low > 1e-3:
        middle = (low + high) / 2
        able = sum(one.rate * max(0.0, middle - one.ready_at) for one in instances)
        low, high = (middle, high) if able < items else (low, middle)
    return high


def publish(run: Run, planned: Plan, done: list[ShardDone], output: Nowhere, figures: Figures) -> None:
    """The real output manifest and summary, from reports that are made while they are read."""
    output.reports = {f"{output.scratch.name}/{one.report}": one.shard for one in done}
    with measured(figures, "publish"):
        asyncio.run(publish_run(run, planned, done, Settings(), output))
    figures["publish_seconds"] -= output.making_seconds
    figures |= {
        "reports": len(done), "report_bytes": output.bytes["report"], "report_reads": output.reads,
        "manifests": output.files["manifest"], "manifest_bytes": output.bytes["manifest"],
    }  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--instances", type=int, default=1_000)
    parser.add_argument("--only", choices=["plan", "share"], help="a phase for itself")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    run = make_run("s3://models/photos", "s3://results/photos").model_copy(update={"attempt": "simulate"})
    output = Nowhere(run)
    figures: Figures = {"items": options.items, "instances": options.instances}
    planned = (
        arithmetic(run, options.items, output) if options.only == "share" else plan(run, options.items, output, figures)
    )
    figures["shards"] = len(planned.shards)
    figures["flow_parameter_bytes"] = len(run.model_dump_json())
    figures["task_bytes"] = len(cloudpickle.dumps((run, planned.items, planned.shards[0])))
    largest(output, planned.shards, figures)
    if options.only != "plan":
        done = share_out(run, planned, options.instances, figures)
        if options.only != "share":
            publish(run, planned, done, output, figures)
    for name, value in figures.items():
        print(f"{name:28} {value:>18,.3f}" if isinstance(value, float) else f"{name:28} {value:>18,}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
