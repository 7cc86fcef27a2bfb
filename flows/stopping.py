"""Stopping a run from outside: Prefect's Cancelling becomes an early end with a complete output manifest."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial, wraps
from typing import ParamSpec
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled

from tasks.domain.run import RunResult, RunStopped
from tasks.engine.loop import engine_loop
from tasks.engine.progress import forget, progress_of
from tasks.engine.sessions import sessions
from tasks.prefect_side.internals import answer_soon
from tasks.prefect_side.own_run import note_start, own_task_id
from tasks.prefect_side.reporting import RunReporter
from tasks.prefect_side.run_logs import in_our_words

P = ParamSpec("P")

ASK_SECONDS = 15.0
"""Time-out for asking the server for the reason of a signal: half of what a worker waits before it kills the run."""


def stoppable(run: Callable[P, Awaitable[RunResult]]) -> Callable[P, Awaitable[RunResult | State[RunResult]]]:
    """Decorator of the flow's function: while it runs, it reports its progress to the server, which can stop it.

    Prefect sets a run that is to be stopped to Cancelling, and its worker sends SIGTERM to the run's process. The state
    is also checked when progress is reported, for runs without a worker. SIGTERM for another reason (shutdown of the
    machine) is left to Prefect. The flow's result is the run's, or Cancelled if it was stopped; raises RunFailed if it
    is Failed.
    """

    @wraps(run)
    async def stopped_in_order(*arguments: P.args, **named: P.kwargs) -> RunResult | State[RunResult]:
        task_id, flow_run = own_task_id(), UUID(str(runtime.flow_run.id))
        forget(task_id)  # a run that Prefect retries in the same process counts from zero
        note_start(progress_of(task_id))
        async with get_client() as client:
            stop = partial(_stop_if_asked, client, flow_run, task_id)
            reporter = RunReporter(client, flow_run, task_id)
            with _sigterm_asks(stop):  # until the last report is sent: a worker's signal may come late
                reporting = asyncio.create_task(reporter.follow(stop))
                try:
                    with in_our_words():
                        result = await run(*arguments, **named)
                    progress_of(task_id).result = result
                    return _ended(result)
                except RunStopped as stopped:
                    return Cancelled(message=str(stopped))
                finally:
                    reporting.cancel()
                    with suppress(asyncio.CancelledError):
                        await reporting
                    await reporter.end()

    # Prefect would resolve the annotations' names in this module.
    stopped_in_order.__signature__ = inspect.signature(run, eval_str=True)  # type: ignore[attr-defined]
    return stopped_in_order


def _ended(result: RunResult) -> RunResult | State[RunResult]:
    if result.stopped or progress_of(result.task_id).stopped:
        return Cancelled(message=f"Stopped: {result.counts}. Output manifest: {result.manifest}")
    return result.checked()


async def _stop_if_asked(client: PrefectClient, flow_run_id: UUID, task_id: str) -> bool:
    """Whether the run is to be stopped, by its state Cancelling; it is halted in that case."""
    if progress_of(task_id).stopped:
        return True
    # By id: a signal may arrive in the nested flow.
    flow_run = (await answer_soon(client, "GET", f"/flow_runs/{flow_run_id}")).json()
    if (flow_run["state"] or {}).get("type") != StateType.CANCELLING.value:
        return False
    await engine_loop().run(sessions.halt(task_id))
    return True


@contextmanager
def _sigterm_asks(stop: Callable[[], Awaitable[bool]]) -> Iterator[None]:
    """Inside the block, SIGTERM calls ``stop`` first, and the previous handler only if that returns False.

    An exception of the previous handler (Prefect's raises one) is raised in the caller's task, once that has been
    cancelled cleanly: in the task that calls ``stop`` it would be lost. Changes nothing outside the main thread, since
    only that thread receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM)
    waiting = asyncio.current_task()
    assert waiting is not None
    answering: set[asyncio.Task[None]] = set()
    raised: list[BaseException] = []

    async def ask() -> None:
        stopped = False
        with suppress(Exception):  # if the server does not answer, the run is not stopped
            async with asyncio.timeout(ASK_SECONDS):
                stopped = await stop()
        if stopped:
            return
        if not callable(before):
            signal.signal(signal.SIGTERM, before)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        try:
            before(signal.SIGTERM, None)
        except BaseException as error:
            raised.append(error)
            waiting.cancel()

    def answer() -> None:
        if not answering:
            answering.add(asyncio.create_task(ask()))

    def hear(*_: object) -> None:
        loop.call_soon_threadsafe(answer)

    signal.signal(signal.SIGTERM, hear)
    _heard.append(hear)
    try:
        yield
    except asyncio.CancelledError:
        if not raised:
            raise
        waiting.uncancel()
        raise raised[0] from None
    finally:
        _heard.remove(hear)
        signal.signal(signal.SIGTERM, before)


_heard: list[Callable[..., None]] = []
"""The SIGTERM handlers of the runs of this process, the latest last."""


@contextmanager
def sigterm_of_the_run() -> Iterator[None]:
    """For a nested flow: keep the SIGTERM handler of the run. Prefect gives each nested flow a handler of its own."""
    if not _heard or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _heard[-1])
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
