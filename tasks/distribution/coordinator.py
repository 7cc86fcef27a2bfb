"""Distributed mode: a run's shards are shared out among instances, each in a worker of a Dask cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import dask
import httpx
from distributed import CancelledError as TaskCancelled
from distributed import KilledWorker
from distributed.client import ClosedClientError
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.futures import PrefectFuture
from prefect.states import Crashed

from tasks.clients import clock
from tasks.distribution import worker_side
from tasks.distribution.run_cluster import Opened, opened_cluster
from tasks.domain.coordination import (
    Begin,
    Coordination,
    Drop,
    ListWorkers,
    LookAt,
    Order,
    Question,
    Show,
    StopEarly,
    Warn,
)
from tasks.domain.run import Plan, Run, ShardDone, ShardRef
from tasks.domain.sharing import Give, TakeBack
from tasks.engine.loop import engine_loop
from tasks.engine.progress import progress_of

END_SECONDS = 20.0
"""Time for a graceful shutdown of the model servers; then the instances' processes end anyway."""

Submit = Callable[[Run, int, ShardRef], PrefectFuture[Any]]


async def share_out(run: Run, planned: Plan, submit: Submit) -> list[ShardDone]:
    """Have every shard of a run processed by the instances of its cluster; returns when all are done.

    ``submit`` starts a task for a shard. Raises ModelServerError if no instance can be started, StorageError if a plan
    or a report cannot be read or written.
    """
    fleet = _Cluster(run, planned, opened_cluster(run.task_id), submit)
    try:
        return await fleet.decisions.direct(fleet)
    finally:
        await fleet.close()


class _Cluster:
    """The workers of a run's cluster, as a fleet.

    Lives on the flow's event loop, in whose context tasks are submitted; questions are asked on the engine's.
    """

    def __init__(self, run: Run, planned: Plan, opened: Opened, submit: Submit) -> None:
        self._run = run
        self._items = planned.items
        self._cluster, self._logger = opened
        self._submit = submit
        self._loop = asyncio.get_running_loop()
        self.decisions = Coordination(run.service, run.output, planned, self._cluster.address, self._loop.time())
        self._progress = progress_of(run.task_id)
        self._progress.enter("preparing")
        self._errands: set[asyncio.Task[None]] = set()
        self._futures: dict[str, PrefectFuture[Any]] = {}
        """The result to come of each shard in progress, by its key."""
        self._wake = asyncio.Event()

    async def wait(self, pause: float, until: float) -> float:
        """Wait for what comes of the orders, and for the user's stop."""
        await asyncio.sleep(pause)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._wake.wait()
        self._wake.clear()
        if (stop := self._progress.stopped) is not None:
            self.decisions.stop(stop)
        return self._loop.time()

    def do(self, order: Order) -> None:
        """Begin to carry out an order."""
        match order:
            case Give(instance, shard):
                self._give(instance, shard)
            case Drop(key):
                if (future := self._futures.get(key)) is not None:
                    self._on_errand(_give_up(future))
            case Warn(text):
                self._logger.warning("%s", text)
            case Show():
                self._show(order)
            case ListWorkers() | Begin() | LookAt() | StopEarly() | TakeBack():
                self._on_errand(self._ask(order))

    def _on_errand(self, work: Coroutine[Any, Any, None]) -> None:
        errand = asyncio.create_task(work)
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    def _give(self, instance: str, shard: ShardRef) -> None:
        # For this instance only: if it is lost, the shard is reassigned here. Dask would never do so if there was no
        # other worker at the time of the loss.
        with dask.annotate(workers=[instance]):  # type: ignore[attr-defined]
            try:
                future = self._submit(self._run, self._items, shard)
            except ClosedClientError:
                raise self._cluster.gone() from None
        self._futures[shard.key] = future

        def ended(_: PrefectFuture[Any]) -> None:
            with suppress(RuntimeError):  # the loop is closed: the result is no longer needed
                self._loop.call_soon_threadsafe(lambda: self._on_errand(self._ended(shard.key, future)))

        future.add_done_callback(ended)

    async def _ended(self, key: str, future: PrefectFuture[Any]) -> None:
        try:
            try:
                done = await asyncio.to_thread(future.result)
            finally:  # only now: until then, a Drop must find it if its instance is lost
                self._futures.pop(key, None)
        except (KilledWorker, TaskCancelled):
            self.decisions.interrupted(key, None, self._loop.time())
        except Exception as error:
            self.decisions.interrupted(key, error, self._loop.time())
        else:
            self.decisions.ended(key, done)
        self._wake.set()

    async def _ask(self, question: Question) -> None:
        try:
            answer = await engine_loop().run(self._answer(question))
        except Exception as error:
            self.decisions.unanswered(question, error, self._loop.time())
        else:
            self.decisions.answered(question, answer, self._loop.time())
        self._wake.set()

    async def _answer(self, question: Question) -> Any:
        ask, task_id = self._cluster.ask, self._run.task_id
        match question:
            case ListWorkers():
                return await self._cluster.workers(), self._cluster.detail
            case Begin(instance, number):
                return await ask(instance, worker_side.begin, self._run, number, self._items)
            case LookAt(instance):
                return await ask(instance, worker_side.look, task_id)
            case StopEarly(instance, stop):
                return await ask(instance, worker_side.stop_early, task_id, stop)
            case TakeBack(instance, key, share, pieces):
                return await ask(instance, worker_side.hand_back, task_id, key, share, pieces)

    def _show(self, now: Show) -> None:
        self._progress.done, self._progress.failed = now.done, now.failed
        self._progress.sick_instances = now.sick
        self._progress.outage = now.outage
        if not now.outage:
            self._progress.outage_since = None
        elif self._progress.outage_since is None:
            self._progress.outage_since = clock.now() - now.outage_seconds
        if now.inferring:
            self._progress.enter("inferring")

    async def close(self) -> None:
        """End every instance; returns once their model servers have ended, or at the time-out."""
        for errand in self._errands:
            errand.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)
        ask, task_id = self._cluster.ask, self._run.task_id
        ends = [engine_loop().run(ask(one, worker_side.end, task_id)) for one in self.decisions.instances]
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await asyncio.gather(*ends, return_exceptions=True)


async def _give_up(future: Any) -> None:
    """Have Dask forget the task of a lost instance, so that waiting for it ends in a cancellation.

    Prefect's server is also informed: no other process could do so.
    """
    with suppress(ClosedClientError, OSError):
        await asyncio.to_thread(future.wrapped_future.cancel)
    with suppress(httpx.HTTPError, PrefectException):
        async with get_client() as client:
            crashed: Any = Crashed(message="Its instance was lost; another one goes on with the shard.")
            await client.set_task_run_state(future.task_run_id, crashed, force=True)
