"""A run whose shards are given out by the product's coordinator, or by Dask's own scheduler (see who_schedules.py)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]

import psutil  # noqa: E402
import who_works  # noqa: E402
from distributed import CancelledError, Client, KilledWorker, as_completed  # noqa: E402
from engine.runs import make_run  # noqa: E402
from fakes.processes import die_with_parent, free_port  # noqa: E402

from tasks.clients.cluster.cluster import DaskCluster  # noqa: E402
from tasks.clients.cluster.dask_security import made_identity, security_of  # noqa: E402
from tasks.clients.cluster.dask_workers import HOST, LocalWorkers  # noqa: E402
from tasks.clients.storage.output_folder import OutputFolder  # noqa: E402
from tasks.clients.storage.storage import Storage  # noqa: E402
from tasks.distribution.coordinator import _Cluster  # noqa: E402
from tasks.distribution.run_cluster import Opened  # noqa: E402
from tasks.domain.coordination import Drop, Order  # noqa: E402
from tasks.domain.run import Plan, Run, ShardDone, ShardRef  # noqa: E402
from tasks.domain.settings import Settings  # noqa: E402
from tasks.domain.sharing import SHARDS_PER_INSTANCE  # noqa: E402
from tasks.engine.loop import engine_loop  # noqa: E402
from tasks.engine.planning import make_plan  # noqa: E402

MILLISECONDS = 25.0
AT = 0.4
"""The fault comes after this share of the ideal time."""
SHARE = 4
"""A task is this part of an instance's share of what remains, ..."""
BOX = 10
"""... and ends after this part of the ideal time."""
LEAST = 4
"""Items of a task, at least."""
TASKS_AT_ONCE = SHARDS_PER_INSTANCE + 1
"""As in tasks.distribution.run_cluster: while one begins or writes its report, the others keep the instance busy."""
RUN_SH = """
if mkdir {folder}/odd 2>/dev/null; then MS={odd}; GO={go_odd}; else MS={plain}; GO=go; fi
exec {python} {program} serve {log} --service-time $MS --parallelism 1 --health-when {folder}/$GO
"""


@dataclass(frozen=True)
class Scenario:
    """What is odd about one of the instances, or what happens in the middle of the run."""

    title: str
    slower: float = 1.0
    healthy_after: float = 0.0
    """Share of the ideal time after which the odd instance becomes healthy."""
    fault: str = ""


NEVER = 1e9
SCENARIOS = {
    "equal": Scenario("all equal"),
    "slower4": Scenario("one 4 times slower", slower=4),
    "slower10": Scenario("one 10 times slower", slower=10),
    "slower100": Scenario("one 100 times slower", slower=100),
    "late": Scenario("one joins late", healthy_after=AT),
    "never": Scenario("one never starts", healthy_after=NEVER),
    "killed": Scenario("one killed", fault="kill"),
    "cut_off": Scenario("one cut off from the storage", fault="cut_off"),
    "result": Scenario("killed with a result that nobody has", fault="result"),
    "scheduler": Scenario("the scheduler killed and started again", fault="scheduler"),
}


@dataclass
class Job:
    """A run with its input and its plan in a folder, and the log of what its model servers and tasks did."""

    folder: Path
    scenario: Scenario
    run: Run
    planned: Plan
    ideal: float
    fault_at: float = 0.0

    @property
    def instances(self) -> int:
        """How many there are."""
        return self.run.service.instances

    @property
    def log(self) -> Path:
        """A line for each event in any process."""
        return self.folder / "log"

    def noted(self, kind: str) -> list[list[str]]:
        """The events of a kind: process, time, and what was said."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split()[1:] for line in lines if line.split()[0] == kind]


async def prepared(folder: Path, scenario: Scenario, items: int, instances: int) -> Job:
    """Files, a model package, and the product's plan of them."""
    source, package = folder / "in", folder / "package"
    source.mkdir()
    package.mkdir()
    for number in range(items):
        (source / f"{number:06}.bin").write_bytes(b"item-%06d" % number)
    (package / "run.sh").write_text(
        RUN_SH.format(
            folder=folder, plain=MILLISECONDS, odd=MILLISECONDS * scenario.slower, python=sys.executable,
            go_odd="go-odd" if scenario.healthy_after else "go", program=who_works.__file__, log=folder / "log",
        )
    )  # fmt: skip
    run = make_run(str(package), str(folder / "out"), package=str(package), instances=instances)
    run = run.model_copy(update={"service": run.service.model_copy(update={"input_path": str(source)})})
    async with stored(run) as (storage, output):
        planned = await make_plan(run, Settings(), storage, output)
    speeds = [1.0] * (instances - 1) + [1.0 / scenario.slower]
    return Job(folder, scenario, run, planned, items * MILLISECONDS / 1000 / sum(speeds))


@asynccontextmanager
async def stored(run: Run) -> AsyncIterator[tuple[Storage, OutputFolder]]:
    """The storage, and the output folder of a run."""
    storage = Storage(Settings(), {})
    try:
        yield storage, OutputFolder(storage, run.output_address, run.names.scratch)
    finally:
        await storage.close()


class Place:
    """A scheduler, workers and a client of theirs, for one try of a job."""

    def __init__(self, job: Job, way: str, *, faulty: bool) -> None:
        self.job = job
        self.faulty = faulty
        self.port = free_port()
        self.address = f"tls://{HOST}:{self.port}"
        self.identity = made_identity()
        self.security = security_of(self.identity)
        about = job.folder / "about.json"
        about.write_text(
            json.dumps({"run": job.run.model_dump(mode="json"), "items": job.planned.items, "log": str(job.log)})
        )
        self.environment = {
            **os.environ, **self.identity.variables(), who_works.ABOUT: str(about),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "PREFECT_HOME": str(job.folder / "home"), "THRESHER_CACHE": str(job.folder / "cache"),
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "THRESHER_REPORT_SECONDS": f"{job.ideal / BOX:.2f}",  # the job is as much shorter than a real one
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0",
        }  # fmt: skip
        own = {"DASK_DISTRIBUTED__WORKER__PRELOAD": "['who_works']"} if way == "dask" else {}
        self.workers = LocalWorkers(self.address, job.instances, TASKS_AT_ONCE, self.environment | own)
        self.awaits_result = False
        self.ended_at = 0.0
        self.cpu_seconds = 0.0

    def start_scheduler(self) -> None:
        """Start it, at the same address each time."""
        command = (sys.executable, "-m", "tasks.clients.cluster.dask_process", "dask_scheduler", "--no-dashboard")
        self.scheduler = subprocess.Popen(
            [*command, "--protocol", "tls", "--host", HOST, "--port", str(self.port)], cwd=self.job.folder,
            env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent,
        )  # fmt: skip

    def end_scheduler(self) -> None:
        """Kill it, and count what it has used."""
        with suppress(psutil.NoSuchProcess):
            self.cpu_seconds += sum(psutil.Process(self.scheduler.pid).cpu_times()[:2])
        self.scheduler.kill()
        self.scheduler.wait()

    async def __aenter__(self) -> Place:
        self.start_scheduler()
        self.cluster = await engine_loop().run(DaskCluster.connect(self.address, self.security))
        self.client: Any = await Client(self.address, security=self.security, asynchronous=True, set_as_default=False)

        async def start() -> None:
            self.workers.start()

        await engine_loop().run(start())
        return self

    async def __aexit__(self, *_: object) -> None:
        await engine_loop().run(self.workers.close())
        with suppress(OSError, TimeoutError):
            await self.client.close(timeout=5)
        await engine_loop().run(self.cluster.close())
        self.end_scheduler()

    async def events(self) -> None:
        """Let all model servers become healthy at once, then do what the scenario says."""
        job, late = self.job, self.job.scenario.healthy_after
        while len(job.noted("up")) < job.instances:
            await asyncio.sleep(0.05)
        (job.folder / "go").touch()
        if late:
            await asyncio.sleep(min(late, NEVER) * job.ideal)
            (job.folder / "go-odd").touch()
        if not self.faulty or not job.scenario.fault:
            return
        while not job.noted("item"):
            await asyncio.sleep(0.05)
        await asyncio.sleep(AT * job.ideal)
        if job.scenario.fault == "result":
            self.awaits_result = True
            return
        job.fault_at = time.time()
        if job.scenario.fault == "scheduler":
            self.end_scheduler()
            await asyncio.sleep(1)
            self.start_scheduler()
            return
        worker = (await engine_loop().run(self.cluster.workers()))[0]
        if job.scenario.fault == "cut_off":
            await engine_loop().run(self.cluster.ask(worker, who_works.cut_off))
        else:
            os.kill(await engine_loop().run(self.cluster.ask(worker, os.getpid)), signal.SIGKILL)

    async def result(self, future: Any) -> Any:
        """A task's result; in one scenario its worker is killed before."""
        if self.awaits_result and future.status == "finished":
            self.awaits_result = False
            (worker,) = (await self.client.who_has([future]))[future.key]
            self.job.fault_at = time.time()
            pid = await engine_loop().run(self.cluster.ask(worker, os.getpid))
            os.kill(pid, signal.SIGKILL)
            with suppress(psutil.NoSuchProcess):
                while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    await asyncio.sleep(0.01)
        return await future


# -- the coordinator --------------------------------------------------------------------------------------------------


class Submitted:
    """As much of a PrefectFuture as the coordinator uses."""

    def __init__(self, place: Place, future: Any) -> None:
        self.wrapped_future = future
        self._place = place
        self._loop = asyncio.get_running_loop()

    def result(self) -> Any:
        """Wait for the result, in a thread."""
        return asyncio.run_coroutine_threadsafe(self._place.result(self.wrapped_future), self._loop).result()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call it once the task has ended."""
        self.wrapped_future.add_done_callback(callback)


class Fleet(_Cluster):
    """The product's fleet; of a shard that is given up no Prefect server is told."""

    def do(self, order: Order) -> None:
        """Begin to carry out an order."""
        if not isinstance(order, Drop):
            super().do(order)
        elif (future := self._futures.get(order.key)) is not None:
            self._on_errand(future.wrapped_future.cancel())


async def by_coordinator(place: Place) -> list[ShardDone]:
    """The product's way."""

    def submit(run: Run, items: int, shard: ShardRef) -> Any:
        return Submitted(place, place.client.submit(who_works.whole, run, items, shard, pure=False))

    job = place.job
    fleet = Fleet(job.run, job.planned, Opened(place.cluster, logging.getLogger("who_schedules")), submit)
    try:
        done = await fleet.decisions.direct(fleet)
        place.ended_at = time.time()
        return done
    finally:
        await fleet.close()


# -- Dask's own scheduler ---------------------------------------------------------------------------------------------


def parts(whole: ShardRef, remain: int, instances: int) -> Iterator[ShardRef]:
    """A range in guided parts: each a share of the items that ``remain`` in the run."""
    while whole.items:
        end = min(whole.end, whole.first_item + max(LEAST, remain // (SHARE * instances)))
        yield whole.until(end)
        remain -= end - whole.first_item
        whole = whole.from_(end)


async def by_dask(place: Place) -> list[ShardDone]:
    """Dask's way: whoever is free takes the next task; what a task has left over, or has lost, is submitted again."""
    job, client, numbers = place.job, place.client, iter(range(10**9))
    remain, box = job.planned.items, job.ideal / BOX
    given: dict[Any, ShardRef] = {}
    done: list[ShardDone] = []

    def submitted(shards: list[ShardRef]) -> list[Any]:
        keys = [("infer-" + job.run.attempt, next(numbers)) for _ in shards]
        given.update(zip(keys, shards, strict=True))
        runs, items, boxes = [job.run] * len(keys), [job.planned.items] * len(keys), [box] * len(keys)
        found: list[Any] = client.map(who_works.boxed, runs, items, shards, boxes, key=keys, pure=False)
        return found

    first = [part for shard in job.planned.shards for part in parts(shard, remain - shard.first_item, job.instances)]
    while len(await engine_loop().run(place.cluster.workers())) < job.instances - 1:
        await asyncio.sleep(0.05)
    futures = as_completed(submitted(first), loop=client.loop)
    async for future in futures:
        shard = given.pop(future.key)
        try:
            result = await place.result(future)
        except (CancelledError, KilledWorker, OSError):  # OSError: the scheduler went while it was asked
            again = [shard]
        else:
            done.append(result)
            remain -= result.shard.items
            again = list(parts(shard.from_(result.shard.end), remain, job.instances))
        if again:
            futures.update(submitted(again))
        future.release()
    place.ended_at = time.time()
    return done


WAYS: dict[str, Callable[[Place], Awaitable[list[ShardDone]]]] = {"coordinator": by_coordinator, "dask": by_dask}
