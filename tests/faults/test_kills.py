"""Processes that are killed in the middle of a run: the run, resumed if necessary, always has every item.

A run without any faults is in test_two_runs.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from faults.scenario import FlowRun, Scenario, assert_nothing_lost

pytestmark = [pytest.mark.slow, pytest.mark.prefect]

Begin = Callable[..., FlowRun]


def test_run__goes_on_after_its_model_server_is_killed(scenario: Scenario, begin: Begin) -> None:
    run = begin(scenario.prepare())
    run.until(scenario.is_in_the_middle)
    run.until(lambda: len(scenario.model_servers) == scenario.instances, "every instance")
    killed = scenario.model_servers
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    run.until(lambda: len({*scenario.model_servers} - {*killed}) == scenario.instances, "other model servers")
    scenario.gate.touch()
    summary = assert_nothing_lost(run.wait())
    assert summary["model_server_deaths"] == scenario.instances


# Killing only the process is tested in test_sigterm.py (two instances) and in test_prefect_faults.py (a worker's).
@pytest.mark.parametrize(
    "group", [pytest.param(False, id="process", marks=pytest.mark.soak), pytest.param(True, id="process-group")]
)
def test_run__is_resumed_after_its_process_is_killed(scenario: Scenario, begin: Begin, group: bool) -> None:
    run = begin(scenario.prepare())
    run.until(scenario.is_in_the_middle)
    assert run.signal(signal.SIGKILL, group=group) == -signal.SIGKILL
    scenario.assert_nothing_left()
    before = scenario.results()
    scenario.gate.touch()
    assert before < 500
    assert_nothing_lost(run.resume().wait())


@pytest.mark.parametrize("instances", [2], indirect=True)
def test_run__goes_on_after_its_model_servers_and_then_a_dask_worker_are_killed(
    scenario: Scenario, begin: Begin
) -> None:
    run = begin(scenario.prepare())
    run.until(scenario.is_in_the_middle)
    run.until(lambda: len(scenario.model_servers) == 2, "both instances")
    first = scenario.model_servers
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    run.until(lambda: len({*scenario.model_servers} - {*first}) == 2, "other model servers")
    before = scenario.model_servers
    os.kill(scenario.pids("dask_worker", "!warden.py")[0], signal.SIGKILL)
    run.until(lambda: {*scenario.model_servers} - {*before}, "an instance in its place")
    scenario.gate.touch()
    summary = assert_nothing_lost(run.wait())
    assert summary["model_server_deaths"] >= 1  # that of the instance whose worker is alive


def test_run__goes_on_after_its_warden_is_killed(scenario: Scenario, begin: Begin) -> None:
    run = begin(scenario.prepare())
    run.until(scenario.is_in_the_middle)
    for pid in scenario.pids("warden.py"):
        os.kill(pid, signal.SIGKILL)
    scenario.gate.touch()
    assert_nothing_lost(run.wait())
