"""Distributed mode: a run's shards are shared out among instances, each in a worker of a Dask cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

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
from tasks.distribution import worker_side as instances
from tasks.distribution.run_cluster import Opened, opened_cluster
from tasks.domain.errors import ModelServerError, StorageError, ThresherError
from tasks.domain.run import Plan, Run, RunStopped, ShardDone, ShardRef
from tasks.domain.sharing import Give, InstanceReport, Sharing, TakeBack, run_loss, run_outage
from tasks.domain.stop import Stop, threshold_passed
from tasks.engine.loop import engine_loop
from tasks.engine.progress import progress_of

LOOK_SECONDS = 0.25
"""Interval between two looks at an instance, if there are few; many are looked at less often."""
LOOKS_AT_ONCE = 128
PAUSE_SECONDS = 0.00025
"""Pause between two rounds of decisions, per instance."""
OUTAGE_SECONDS = 300.0
"""How long a storage that no instance reaches is waited for; then the run fails, and can be resumed."""
END_SECONDS = 20.0
"""Time for a graceful shutdown of the model servers; then the instances' processes end anyway."""
STOP_SECONDS = 30.0
"""How long a run that is stopped before it had any worker waits for one to account for its items."""
SERVER_SECONDS = 10.0
"""Delay before a shard is given to an instance again after Prefect could not run its task."""
MOST_LOSSES = 10
"""How often a shard may be lost with its instance; after that the run fails."""

Submit = Callable[[Run, int, ShardRef], PrefectFuture[Any]]
T = TypeVar("T")


async def share_out(run: Run, planned: Plan, submit: Submit) -> list[ShardDone]:
    """Have every shard of a run processed by the instances of its cluster; returns when all are done.

    ``submit`` starts a task for a shard. Raises ModelServerError if no instance can be started, StorageError if a plan
    or a report cannot be read or written.
    """
    coordinator = _Coordinator(run, planned, opened_cluster(run.task_id), submit)
    try:
        return await coordinator.run()
    finally:
        await coordinator.close()


class _Coordinator:
    """Lives on the flow's event loop, in whose context tasks are submitted; queries the cluster on the engine's."""

    def __init__(self, run: Run, planned: Plan, opened: Opened, submit: Submit) -> None:
        self._run = run
        self._planned = planned
        self._cluster, self._logger = opened
        self._submit = submit
        self._progress = progress_of(run.task_id)
        self._sharing = Sharing(planned.shards)
        self._attending: dict[str, asyncio.Task[None]] = {}
        self._numbers: dict[str, int] = {}
        self._reports: dict[str, InstanceReport] = {}
        self._was_ready: set[int] = set()
        self._told: dict[str, set[Stop]] = {}
        self._given_up: dict[int, str] = {}
        self._away: dict[int, str] = {}
        """Instances given up because their model servers were away for too long, with the reasons."""
        self._cut_off: dict[int, float] = {}
        """Instances that cannot reach the storage, and since when."""
        self._losses: dict[str, int] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._futures: dict[str, tuple[str, Any]] = {}
        """By the key of a shard in progress: its instance, and the future of its result."""
        self._failure: BaseException | None = None
        self._stopped: Stop | None = None
        self._stopped_at = 0.0
        self._had_workers = False
        self._wake = asyncio.Event()

    # -- the loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> list[ShardDone]:
        self._progress.enter("preparing")
        deadline = asyncio.get_running_loop().time() + self._run.service.timeout_minutes * 60
        # Concurrently: an unresponsive scheduler must not delay the reports of the instances.
        self._on_errand(self._keep_looking_for_workers())
        while not self._sharing.finished:
            self._look_at_stops()
            if self._failure is not None:
                raise self._failure
            if not self._was_ready and self._stopped is None:
                self._check_start(asyncio.get_running_loop().time() > deadline)
            self._check_stop()
            for move in self._sharing.moves():
                await self._do(move)
            self._show()
            self._wake.clear()
            # Many instances wake it often, and the cost of each round grows with their number.
            await asyncio.sleep(min(LOOK_SECONDS, len(self._attending) * PAUSE_SECONDS))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()
        self._show()
        return self._sharing.results

    async def _keep_looking_for_workers(self) -> None:
        while True:
            try:
                await self._look_for_workers()
            except Exception as error:
                self._failure = error
                self._wake.set()
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_for_workers(self) -> None:
        there = set(await self._ask(self._cluster.workers()))
        for worker in [one for one in self._attending if one not in there]:
            self._attending.pop(worker).cancel()
            self._forget(worker)
        wanted = self._run.service.instances
        for worker in sorted(there - set(self._attending)):
            if len(self._attending) < wanted:
                number = min(set(range(wanted)) - set(self._numbers.values()))
                self._numbers[worker] = number
                self._had_workers = True
                self._attending[worker] = asyncio.create_task(self._attend(worker, number))

    def _forget(self, worker: str) -> None:
        self._sharing.lost(worker)
        for instance, future in list(self._futures.values()):
            if instance == worker:
                self._on_errand(_give_up(future))
        self._reports.pop(worker, None)
        self._told.pop(worker, None)
        number = self._numbers.pop(worker, None)
        if number in self._was_ready:
            self._logger.warning("instance-%d lost: its process (%s) is gone", number, worker)

    def _check_start(self, late: bool) -> None:
        """Raises ModelServerError once it is certain that no instance can be started."""
        if len(self._given_up) == self._run.service.instances:
            raise ModelServerError(next(iter(self._given_up.values())))
        if late and not self._numbers:
            minutes = self._run.service.timeout_minutes
            raise ModelServerError(
                f"No worker of the Dask cluster {self._cluster.address} was there within {minutes:g} minutes. "
                f"{self._cluster.said}".rstrip()
            )

    def _check_stop(self) -> None:
        """Raises RunStopped if the run is stopped and has had no worker, even after a short wait."""
        now = asyncio.get_running_loop().time()
        if self._stopped is None or self._had_workers:
            return
        self._stopped_at = self._stopped_at or now
        if now > self._stopped_at + STOP_SECONDS:
            raise RunStopped("Stopped before a worker of the Dask cluster was there: nothing was sent.")

    # -- the instances ----------------------------------------------------------------------------------------------

    async def _attend(self, worker: str, number: int) -> None:
        """Start the instance of a worker, and look at it until the worker is gone."""
        begun = False
        while True:
            try:
                if not begun:
                    begun = await self._ask(
                        self._cluster.ask(worker, instances.begin, self._run, number, self._planned.items)
                    )
                if begun:
                    report = await self._ask(self._cluster.ask(worker, instances.look, self._run.task_id))
                    begun = report is not None  # it ends by itself after a long time without a look
                    if report is not None:
                        await self._heard(worker, number, report)
            except (OSError, TimeoutError):
                pass  # gone or cut off: the scheduler reports that it is lost, or it answers again
            except Exception as error:
                self._given_up[number] = str(error)
            await asyncio.sleep(LOOK_SECONDS * max(1.0, len(self._attending) / LOOKS_AT_ONCE))

    async def _heard(self, worker: str, number: int, report: InstanceReport) -> None:
        if report.error and not report.cut_off and number not in self._given_up:
            self._logger.warning("instance-%d given up: %s", number, report.error.split("\n", 1)[0])
            self._given_up[number] = report.error
        if report.away:
            self._away[number] = report.away
        if report.cut_off and number not in self._cut_off:
            self._logger.warning("instance-%d cut off: %s", number, report.error)
            self._cut_off[number] = asyncio.get_running_loop().time()
        elif not report.cut_off:
            self._cut_off.pop(number, None)
        if report.ready:
            self._given_up.pop(number, None)
            self._away.pop(number, None)
            self._was_ready.add(number)
            self._progress.enter("inferring")
        self._stopped = self._stopped or report.stopped
        if self._stopped is not None:
            await self._tell_to_stop(worker, self._stopped)
            report = _with_hands(report)
        self._reports[worker] = report
        self._sharing.heard(worker, report)
        self._wake.set()

    async def _tell_to_stop(self, worker: str, stop: Stop) -> None:
        if stop not in self._told.setdefault(worker, set()):
            await self._ask(self._cluster.ask(worker, instances.stop_early, self._run.task_id, stop))
            self._told[worker].add(stop)

    def _look_at_stops(self) -> None:
        """Decide whether to stop the run: by hand, by its error threshold, or because no instance is left."""
        self._stopped = self._progress.stopped or self._stopped
        if self._stopped is not None:
            return
        _, failed = self._sharing.counts
        if stop := threshold_passed(self._run.service.error_threshold, failed, self._planned.items):
            self._stopped = stop
        elif self._was_ready and len(self._given_up) == self._run.service.instances:
            self._stopped = run_loss(self._given_up, self._away)
        elif self._cut_off and len({*self._given_up, *self._cut_off}) == self._run.service.instances:
            since = max(self._cut_off.values())
            if asyncio.get_running_loop().time() - since > OUTAGE_SECONDS:
                self._failure = StorageError(
                    f"No instance has reached the storage for {OUTAGE_SECONDS / 60:g} minutes: {self._run.output}, or "
                    "the run's input. Resume the run when it answers."
                )

    def _show(self) -> None:
        self._progress.done, self._progress.failed = self._sharing.counts
        sick = sum(report.sick for report in self._reports.values() if not report.error)
        there = {self._numbers[worker] for worker in self._reports}
        sick += len({*self._given_up, *self._cut_off, *(self._was_ready - there)})
        self._progress.sick_instances = min(sick, self._run.service.instances)
        cause, seconds = run_outage(self._reports.values()) if self._stopped is None else ("", 0.0)
        self._progress.outage = cause
        if not cause:
            self._progress.outage_since = None
        elif self._progress.outage_since is None:
            self._progress.outage_since = clock.now() - seconds

    # -- the shards -------------------------------------------------------------------------------------------------

    async def _do(self, move: Give | TakeBack) -> None:
        if isinstance(move, TakeBack):
            self._on_errand(self._take_back(move))
            return
        # For this instance only: if it is lost, the shard is reassigned here. Dask would never do so if there was no
        # other worker at the time of the loss.
        with dask.annotate(workers=[move.instance]):  # type: ignore[attr-defined]
            try:
                future = self._submit(self._run, self._planned.items, move.shard)
            except ClosedClientError:
                raise self._cluster.gone() from None
        loop = asyncio.get_running_loop()
        key = move.shard.key
        self._futures[key] = (move.instance, future)

        def ended(_: PrefectFuture[Any]) -> None:
            with suppress(RuntimeError):  # the loop is closed: the result is no longer needed
                loop.call_soon_threadsafe(lambda: self._on_errand(self._ended(key, future)))

        future.add_done_callback(ended)

    def _on_errand(self, work: Coroutine[Any, Any, None]) -> None:
        errand = asyncio.create_task(work)
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def _take_back(self, move: TakeBack) -> None:
        question = self._cluster.ask(
            move.instance, instances.hand_back, self._run.task_id, move.key, move.share, move.pieces
        )
        pieces: list[ShardRef] = []
        with suppress(Exception):  # if the answer is lost, the shard's result shows what was handed back
            pieces = await self._ask(question)
        if self._futures.get(move.key, ("",))[0] != move.instance:  # lost in the meantime, and begun again by another
            return
        self._sharing.handed_back(move.key, pieces)
        self._wake.set()

    async def _ended(self, key: str, future: PrefectFuture[Any]) -> None:
        try:
            try:
                done = await asyncio.to_thread(future.result)
            finally:  # only now: until then, _give_up must find it if its instance is lost
                self._futures.pop(key, None)
            self._sharing.ended(key, done)
        except (ModelServerError, KilledWorker, TaskCancelled) as error:
            # The instance could not continue.
            self._losses[key] = self._losses.get(key, 0) + 1
            if self._losses[key] > MOST_LOSSES:
                self._failure = error if isinstance(error, ModelServerError) else ModelServerError(
                    f"The processes of {self._losses[key]} instances died while they worked on shard {key}."
                )  # fmt: skip
            self._sharing.failed(key)
        except ThresherError as error:
            self._failure = error
        except Exception as error:
            # Prefect could not begin or end the task: its server may recover soon.
            self._losses[key] = self._losses.get(key, 0) + 1
            if self._losses[key] > MOST_LOSSES:
                self._failure = error
            else:
                await asyncio.sleep(SERVER_SECONDS)
            self._sharing.failed(key)
        self._wake.set()

    @staticmethod
    async def _ask(question: Coroutine[Any, Any, T]) -> T:
        return await engine_loop().run(question)

    async def close(self) -> None:
        """End every instance; returns once their model servers have ended, or at the time-out."""
        tasks = [*self._attending.values(), *self._errands]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ends = [self._ask(self._cluster.ask(one, instances.end, self._run.task_id)) for one in self._attending]
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


def _with_hands(report: InstanceReport) -> InstanceReport:
    """An instance's report for a run that is stopped: it needs no model server to account for unprocessed items."""
    return InstanceReport(seconds=report.seconds, ready=True, shards=report.shards, stopped=report.stopped)
