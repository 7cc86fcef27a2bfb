"""Who gives out the shards: the product's coordinator, or Dask's own scheduler? The same faults for both, side by side.

    python tests/benchmarks/who_schedules.py                      # every scenario, 3 rounds: some 40 minutes
    python tests/benchmarks/who_schedules.py --only equal killed --rounds 1 [--items 2400] [--json figures.json]
    python tests/benchmarks/who_schedules.py --thousand           # what 1,000 instances cost, without inference

Four Dask workers, started as the product starts them, are the instances; each has a model server of its own (the fake
one, one request at a time) and does its shards with the product's session and engine. The scheduler is a process.

coordinator   the product's: tasks.domain.coordination in its own loop, with the fleet of tasks.distribution. Tasks are
              pinned to workers; parts are taken back from those that are behind. Only Prefect's task is left out.
dask          tasks for any worker, queued in the scheduler (worker-saturation 1.0). A task is a quarter of the share of
              an instance in what remains; it ends after a box of time, and the rest is submitted again. A worker joins
              the cluster when its model server is healthy, and pauses while it cannot work (who_works.py).

The ideal is computed from the moments at which the model servers became healthy and from their speeds; what was killed
or cut off counts until then. Items sent twice are counted by the model servers, lost ones by the product's publishing.
A run that does not end by itself is resumed as the product resumes it: on a new cluster, with the stored plan.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]

import psutil  # noqa: E402
import who_works  # noqa: E402
from distributed import Client  # noqa: E402
from fakes.processes import die_with_parent, free_port  # noqa: E402
from room import SHARED_MEMORY  # noqa: E402
from who_gives import BOX, SCENARIOS, TASKS_AT_ONCE, WAYS, Job, Place, Scenario, parts, prepared, stored  # noqa: E402

from tasks.domain.run import ShardDone, ShardRef  # noqa: E402
from tasks.domain.settings import Settings  # noqa: E402
from tasks.engine.publishing import publish_run  # noqa: E402

Figures = dict[str, Any]
LIMIT = 6
"""A try is given up after this many times the ideal, and a minute."""
CONNECTED = 200
"""Workers that a process holds in reasonable time; with more instances, the cost of idle ones is multiplied."""
MEMORY = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
"""Each task ends with a sync, which takes long on a disk that others use."""


async def played(scenario: Scenario, way: str, items: int, instances: int) -> Figures:
    """One run, to its published end."""
    with tempfile.TemporaryDirectory(prefix="who-schedules-", dir=MEMORY, ignore_cleanup_errors=True) as name:
        job = await prepared(Path(name), scenario, items, instances)
        figures: Figures = {"tries": 0, "why": "", "scheduler_cpu": 0.0}
        done: list[ShardDone] | None = None
        while done is None and figures["tries"] < 3:
            if figures["tries"]:
                job.run = job.run.model_copy(update={"attempt": uuid.uuid4().hex[:8]})
            place = Place(job, way, faulty=not figures["tries"])
            done = await one_try(place, way, figures)
            figures["scheduler_cpu"] += place.cpu_seconds
            figures["tries"] += 1
        sent = Counter(item for _, _, item in job.noted("item"))
        figures |= {
            "tasks": len(job.noted("task")), "sent_twice": sum(sent.values()) - len(sent),
            "lost": items - (await published(job, done) if done is not None else 0),
        }  # fmt: skip
        return figures


async def one_try(place: Place, way: str, figures: Figures) -> list[ShardDone] | None:
    """What came of a try; None if it did not end by itself."""
    job = place.job
    async with place:
        events = asyncio.ensure_future(place.events())
        try:
            async with asyncio.timeout(LIMIT * job.ideal + 60):
                done = await WAYS[way](place)
        except Exception as error:
            figures["why"] = f"{type(error).__name__}: {error}"[:200]
            return None
        finally:
            events.cancel()
            await asyncio.gather(events, return_exceptions=True)
        if figures["tries"] == 0:
            began, ideal = ideal_of(job)
            figures |= {"ratio": (place.ended_at - began) / ideal, "ideal": ideal}
    return done


def ideal_of(job: Job) -> tuple[float, float]:
    """When the first model server was healthy, and the seconds from then if all of them end at once."""
    servers = sorted((float(at), 1000 / float(milliseconds)) for _, at, milliseconds in job.noted("ready"))
    taken_out = 0 if not job.fault_at else len(servers) if job.scenario.fault == "scheduler" else 1
    began = servers[0][0]
    low, high = 0.0, 1e6
    while high - low > 1e-3:
        middle = (low + high) / 2
        able = 0.0
        for place, (at, rate) in enumerate(servers):
            ends = place < taken_out and at < job.fault_at
            able += rate * max(0.0, min(began + middle, job.fault_at if ends else began + middle) - at)
        low, high = (middle, high) if able < job.planned.items else (low, middle)
    return began, high


async def published(job: Job, done: Sequence[ShardDone]) -> int:
    """How many items publishing finds to be successful; it refuses unless each has exactly one outcome."""
    async with stored(job.run) as (_, output):
        return (await publish_run(job.run, job.planned, done, Settings(), output)).successful


# -- the table --------------------------------------------------------------------------------------------------------


def table(found: dict[str, dict[str, list[Figures]]]) -> str:
    """Medians, as Markdown; coordinator / dask."""
    lines = [
        "| what happens | by the ideal | tasks | items sent twice | lost | ended by itself |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, ways in found.items():
        cells = [SCENARIOS[name].title]
        for key, form in (("ratio", ".2f"), ("tasks", ".0f"), ("sent_twice", ".0f"), ("lost", ".0f")):
            cells.append(" / ".join(_median([one.get(key) for one in rounds], form) for rounds in ways.values()))
        ended = [f"{sum(one['tries'] == 1 for one in rounds)} of {len(rounds)}" for rounds in ways.values()]
        lines.append(f"| {' | '.join([*cells, ' / '.join(ended)])} |")
    return "\n".join(lines)


def _median(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return format(statistics.median(known), form) if known else "-"


# -- a thousand instances ---------------------------------------------------------------------------------------------


def thousand(instances: int, items: int) -> Figures:
    """CPU seconds that either way needs for so many instances: measured by task and by call, times how many there are.

    How many is played: by the product's coordinator with the instances of simulate.py; by Dask's way with the same.
    """
    figures = asyncio.run(costs(min(instances, CONNECTED)))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "figures.json"
        command = [sys.executable, str(HERE / "simulate.py"), "--only", "share", "--json", str(path)]
        command += ["--instances", str(instances), "--items", str(items)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        shared = json.loads(path.read_bytes())
    calls, tasks = shared["looks"] + shared["taken_back"], guided_tasks(instances, items, shared["ideal_seconds"])
    idle = figures["idle_share"] * max(1.0, instances / CONNECTED) * shared["ideal_seconds"]
    return figures | {
        "ideal_seconds": shared["ideal_seconds"],
        "coordinator_tasks": shared["task_runs"],
        "coordinator_calls": calls,
        "coordinator_decisions_seconds": shared["sharing_seconds"],
        "coordinator_seconds": shared["sharing_seconds"]
        + (shared["task_runs"] * figures["task_ms"] + calls * figures["call_ms"]) / 1000
        + idle,
        "dask_tasks": tasks,
        "dask_seconds": tasks * figures["task_ms"] / 1000 + idle,
    }


async def costs(instances: int, tasks_each: int = 20, idle_seconds: float = 20) -> Figures:
    """CPU of a scheduler's process and this one together, by task and by call to a worker; and with nothing to do."""
    port = free_port()
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0", "PYTHONPATH": str(HERE)}
    commands = (
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--port", str(port)],
        [sys.executable, who_works.__file__, "workers", f"tcp://127.0.0.1:{port}", str(instances)],
    )
    started = [_started(command, environment) for command in commands]
    pair = psutil.Process(started[0].pid), psutil.Process()

    def cpu() -> float:
        return sum(sum(one.cpu_times()[:2]) for one in pair)

    try:
        async with Client(f"tcp://127.0.0.1:{port}", asynchronous=True, set_as_default=False, timeout=60) as client:
            while len(there := (await client.scheduler.identity(n_workers=-1))["workers"]) < instances:
                await asyncio.sleep(0.5)
            before = cpu()
            await asyncio.sleep(idle_seconds)
            idle = (cpu() - before) / idle_seconds

            async def by(count: int, work: Any) -> float:
                before, began = cpu(), time.monotonic()
                await work
                return 1000 * (cpu() - before - idle * (time.monotonic() - began)) / count

            count = tasks_each * instances
            task_ms = await by(count, client.gather(client.map(who_works.nothing, range(count), pure=False)))
            asked = asyncio.gather(*(client.run(len, "", workers=[one]) for one in there))
            return {"idle_share": idle, "task_ms": task_ms, "call_ms": await by(instances, asked)}
    finally:
        for one in started:
            one.kill()
            one.wait()


def _started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, preexec_fn=die_with_parent, stderr=subprocess.DEVNULL)


def guided_tasks(instances: int, items: int, ideal: float) -> int:
    """How many tasks Dask's way makes of a run whose instances are those of simulate.py; time is counted."""
    from simulate import _instance

    chance = random.Random(instances)
    rates = [_instance(chance, 1).rate for _ in range(instances)]
    whole = ShardRef(number=0, first_item=0, items=items, bytes=items)
    waiting, box, tasks = list(parts(whole, items, instances)), ideal / BOX, 0
    while waiting:  # each part goes to some instance, which does what it can in a box
        part = waiting.pop()
        tasks += 1
        able = max(1, round(chance.choice(rates) / TASKS_AT_ONCE * box))
        if able < part.items:
            waiting.append(part.from_(part.first_item + able))
    return tasks


def main(*arguments: str) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=[*SCENARIOS])
    parser.add_argument("--items", type=int, default=2_400)
    parser.add_argument("--thousand", action="store_true", help="what many instances cost")
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(arguments)
    found: Any
    if options.thousand:
        found = thousand(1_000, 1_000_000)
        print("\n".join(f"{name:28} {value:>14,.3f}" for name, value in found.items()))
    else:
        found = {name: {way: [] for way in WAYS} for name in options.only}
        for number in range(options.rounds):
            for name in options.only:
                for way in sorted(WAYS, reverse=bool(number % 2)):
                    figures = asyncio.run(played(SCENARIOS[name], way, options.items, options.instances))
                    print(name, way, json.dumps(figures), file=sys.stderr, flush=True)
                    found[name][way].append(figures)
                    if options.json:
                        options.json.write_text(json.dumps(found, indent=1))
        print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
