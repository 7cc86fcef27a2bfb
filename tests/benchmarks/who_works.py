"""What runs in the processes of who_schedules.py: model servers, tasks, Dask workers that are instances.

python tests/benchmarks/who_works.py serve LOG OPTION...            # the fake model server, which notes its requests
python tests/benchmarks/who_works.py workers ADDRESS NUMBER         # many workers of a scheduler in one process
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from distributed import Reschedule, Worker
from distributed.core import Status

ABOUT = "WHO_SCHEDULES"
"""The variable that names a file with the run, the number of its items, and the log, for each Dask worker."""
LOOK_SECONDS = 0.1
GATE_SECONDS = 0.3
"""A task that its instance cannot do goes back only after this time: by then the worker takes no other."""
WORKERS_AT_ONCE = 50


def note(log: str, kind: str, *words: object) -> None:
    """Append a line to the log that all processes share."""
    with open(log, "a") as file:
        file.write(" ".join([kind, str(os.getpid()), f"{time.time():.3f}", *map(str, words)]) + "\n")


@cache
def _about() -> dict[str, Any]:
    about: dict[str, Any] = json.loads(Path(os.environ[ABOUT]).read_bytes())
    return about


# -- tasks ------------------------------------------------------------------------------------------------------------


def whole(run: Any, items: int, shard: Any) -> Any:
    """A shard as the product does it, without the Prefect task around it."""
    from tasks.engine.loop import engine_loop
    from tasks.infer import _infer

    note(_about()["log"], "task", shard.key)
    return engine_loop().run_blocking(_infer(run, items, shard))


def boxed(run: Any, items: int, shard: Any, seconds: float) -> Any:
    """A shard for so long; its result says where it ends, and the rest is another task's."""
    from tasks.engine.loop import engine_loop

    note(_about()["log"], "task", shard.key)
    return engine_loop().run_blocking(_boxed(run, items, shard, seconds))


async def _boxed(run: Any, items: int, shard: Any, seconds: float) -> Any:
    from tasks.distribution.worker_side import session_of
    from tasks.domain.errors import ModelServerError
    from tasks.engine.shard import work_on

    session = await session_of(run, items)
    work = asyncio.ensure_future(work_on(session, shard))
    try:
        while not (await asyncio.wait([work], timeout=seconds))[0]:
            await session.shards.hand_back(shard.key, 1.0, 1)
        return await work
    except ModelServerError:
        await asyncio.sleep(GATE_SECONDS)
        raise Reschedule from None


async def nothing(number: int) -> int:
    """A task that takes no time, to find out what a task costs the scheduler."""
    return number


def cut_off() -> None:
    """From now on this process does not reach the storage."""
    from tasks.clients.storage.failures import Unreachable
    from tasks.clients.storage.storage import Storage

    async def away(*_: object, **__: object) -> None:
        raise Unreachable("The storage does not answer.")

    for name in ("read", "write"):
        setattr(Storage, name, away)


# -- a Dask worker that is an instance by itself ----------------------------------------------------------------------


async def dask_setup(worker: Worker) -> None:
    """Start the instance of this process; the worker joins the cluster when it is healthy, and pauses while it is not.

    Dask calls this before a worker registers, if the module is in ``distributed.worker.preload``.
    """
    from tasks.distribution.worker_side import begin, look
    from tasks.domain.run import Run

    run = Run.model_validate(_about()["run"])
    await begin(run, os.getpid(), _about()["items"], worker)

    async def able() -> bool:
        await asyncio.sleep(LOOK_SECONDS)
        report = await look(run.task_id)
        return report is not None and report.ready

    async def gate() -> None:
        while worker.status not in (Status.closing, Status.closed):
            wanted = Status.running if await able() else Status.paused
            if worker.status != wanted and worker.status in (Status.running, Status.paused):
                worker.status = wanted

    while not await able():
        pass
    _gates.append(asyncio.create_task(gate()))


_gates: list[asyncio.Task[None]] = []


# -- processes --------------------------------------------------------------------------------------------------------


def serve(log: str, *options: str) -> None:
    """The fake model server; notes when it is up, when it is first found healthy, and each item sent to it."""
    import uvloop
    from fakes import model_server
    from fakes.model_protocol import Connection

    parsed = model_server.parse([*options])
    found_healthy: list[bool] = []

    class Noting(Connection):
        def handle(self, method: bytes, path: str, body: bytes, keep: bool) -> None:
            """Note the request, and answer it."""
            if method == b"POST" and (item := re.search(rb"item-(\d+)", body)):
                note(log, "item", item[1].decode())
            elif path == "/health" and self.server.healthy and not found_healthy:
                found_healthy.append(True)
                note(log, "ready", parsed.service_time)
            super().handle(method, path, body, keep)

    model_server.Connection = Noting
    note(log, "up")
    uvloop.run(model_server.run(parsed))


async def many_workers(address: str, number: int) -> None:
    """So many workers of a scheduler, until this process is ended."""
    workers: list[Any] = []
    while len(workers) < number:
        some = [
            Worker(address, nthreads=2, memory_limit=0, dashboard=False)
            for _ in range(min(WORKERS_AT_ONCE, number - len(workers)))
        ]
        workers += await asyncio.gather(*some)
    await asyncio.gather(*(one.finished() for one in workers))


def main(what: str, *arguments: str) -> None:
    """Entry point."""
    if what == "serve":
        serve(*arguments)
    else:
        asyncio.run(many_workers(arguments[0], int(arguments[1])))


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
    main(*sys.argv[1:])
