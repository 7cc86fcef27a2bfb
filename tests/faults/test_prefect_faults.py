"""Prefect's server and workers are gone for a while, or killed, in the middle of a run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import prefect_servers, processes
from fakes.prefect_servers import PrefectServer, WorkerProcess
from faults.scenario import FINAL, HELD, RUN_SECONDS, FlowRun, Scenario, assert_nothing_lost

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group("faults-server")]

Begin = Callable[..., FlowRun]
OUTAGE_SECONDS = 30.0 if processes.FULL_LENGTH else 10.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, _nothing_left_behind: None) -> Iterator[PrefectServer]:
    """A Prefect server for these tests only, with the pools of the project."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from deployments.set_up.pools import apply_pools

    with prefect_servers.sqlite_server(tmp_path_factory.mktemp("faults-server")) as one:
        with temporary_settings(updates={PREFECT_API_URL: one.api}):
            apply_pools(Path("infra/pools").absolute())
        yield one


@pytest.fixture
def scenario(tmp_path: Path, server: PrefectServer, processes_of: Any, package: Any, instances: int) -> Scenario:
    """A service on local disks, with its runs on that server."""
    return Scenario(tmp_path, server.api, processes_of, package, instances)


@pytest.fixture
def worker(server: PrefectServer, scenario: Scenario) -> Iterator[WorkerProcess]:
    """A worker of the pool; its runs are found by its TMPDIR."""
    with prefect_servers.worker(server, "public-cpu", scenario.environment) as one:
        yield one


@pytest.fixture
def deployed(server: PrefectServer, scenario: Scenario, worker: WorkerProcess, begin: Begin) -> Callable[[], FlowRun]:
    """Deploys the scenario's service; returns its first run, which the worker starts."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from deployments.services import lifecycle

    def deploy() -> FlowRun:
        with temporary_settings(updates={PREFECT_API_URL: server.api}):
            service = lifecycle.deploy(scenario.fields)
        assert service.last_run is not None
        return begin(scenario, service.last_run.id)

    return deploy


def flow_process(run: FlowRun) -> list[int]:
    """The process of a run that a worker has started."""
    mark = f"PREFECT__FLOW_RUN_ID={run.task_id}".encode()
    found = []
    for pid in run.scenario.pids("flow_engine", "!warden.py") or run.scenario.pids("prefect", "!warden.py"):
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def retried(run: FlowRun) -> None:
    """Let the worker run it again; returns when the worker has taken it."""

    def taken_up() -> bool:
        state = run.state()["type"]
        if state in ("CRASHED", "FAILED", "RUNNING") and not flow_process(run):
            run.await_retry()  # a worker reports the end of a process twice: a state set in between is lost
        return state in ("PENDING", "RUNNING") and bool(flow_process(run))

    processes.poll(taken_up, lambda: f"the next try of {run.told()}", RUN_SECONDS)


def ended(run: FlowRun) -> str:
    """The type of the run's final state."""
    state = processes.poll(
        lambda: found if (found := run.state())["type"] in FINAL else None, lambda: f"the end of {run.told()}",
        RUN_SECONDS,
    )  # fmt: skip
    return str(state["type"])


def test_run__outlasts_a_prefect_server_that_is_gone_for_a_while(
    scenario: Scenario, server: PrefectServer, begin: Begin
) -> None:
    assert server.web is not None
    run = begin(scenario.prepare())
    run.until(scenario.is_in_the_middle)
    server.web.stop()
    try:
        scenario.gate.touch()  # shards end and begin, and the run ends, without a server to report to
        time.sleep(OUTAGE_SECONDS)  # the length of the outage is under test
    finally:
        server.web.start()
    assert_nothing_lost(run.wait())


def test_deployed_run__is_resumed_after_its_process_is_killed_and_goes_on_after_its_worker_is(
    scenario: Scenario, worker: WorkerProcess, deployed: Callable[[], FlowRun]
) -> None:
    scenario.prepare()
    run = deployed()
    run.until(scenario.is_in_the_middle)
    for pid in flow_process(run):
        os.kill(pid, signal.SIGKILL)
    assert ended(run) == "CRASHED"
    scenario.assert_nothing_left()
    before = scenario.asked()
    retried(run)
    run.until(lambda: scenario.asked() >= before + HELD, "the same items' requests of the next try")
    (process,) = flow_process(run)
    assert worker.process is not None
    worker.process.kill()
    worker.process.wait()
    worker.start()
    assert flow_process(run) == [process]
    scenario.gate.touch()
    assert_nothing_lost(run)
