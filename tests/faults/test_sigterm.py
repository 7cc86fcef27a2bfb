"""SIGTERM in each phase, to the command and to a deployed run's process; after a retry every item has its line."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import processes
from fakes.api_proxy import ApiProxy
from fakes.s3_proxy import Rule, S3Proxy
from faults.corpus import Corpus
from faults.scenario import RUN_SECONDS, FlowRun, S3Scenario, Scenario, assert_nothing_lost

pytestmark = [pytest.mark.slow, pytest.mark.prefect]

Begin = Callable[..., FlowRun]
HELD_REQUESTS = {
    "validating": Rule("hold", target=r"data"),
    "planning": Rule("hold", method="PUT", target=r"plan"),
    "publishing": Rule("hold", method="PUT", target=r"\.summary\.json"),
}
PHASES = ("validating", "planning", "preparing", "inferring", "publishing")
END_SECONDS = 60.0
"""A run that gets SIGTERM has ended within this time, however busy the machine."""


class Phase:
    """Blocks a run in one phase until it is let go."""

    def __init__(self, name: str, scenario: S3Scenario, proxy: S3Proxy) -> None:
        self.name = name
        self._scenario = scenario
        self._rule: Rule | None = None
        if (rule := HELD_REQUESTS.get(name)) is not None:
            self._rule = proxy.add(Rule(rule.action, rule.method, rule.target))

    def reached(self) -> bool:
        """Whether the run is blocked in the phase."""
        if self._rule is not None:
            return self._rule.done > 0
        return self._scenario.starts() > 0 if self.name == "preparing" else self._scenario.is_in_the_middle()

    def let_go(self) -> None:
        """Stop blocking the run in this phase."""
        if self._rule is not None:
            self._rule.release()
        elif self.name == "preparing":
            healthy(self._scenario).touch()
        else:
            self._scenario.gate.touch()


def healthy(scenario: Scenario) -> Path:
    """The file that makes the model servers healthy once it exists."""
    return scenario.folder / "healthy"


def prepare(scenario: S3Scenario) -> None:
    """Write the items and the package; the run is blocked while the model is prepared and during inference."""
    scenario.prepare(Corpus(scenario.held, links=False), "--health-when", str(healthy(scenario)))


def only(name: str, scenario: S3Scenario, proxy: S3Proxy) -> Phase:
    """The only phase in which the run is blocked."""
    prepare(scenario)
    for other in {"preparing", "inferring"} - {name}:
        Phase(other, scenario, proxy).let_go()
    return Phase(name, scenario, proxy)


def test_run__whose_process_got_sigterm_in_one_phase_after_the_other_is_resumed(
    s3_scenario: S3Scenario, proxy: S3Proxy, begin: Begin
) -> None:
    phases = [Phase(name, s3_scenario, proxy) for name in PHASES]
    prepare(s3_scenario)
    run = begin(s3_scenario)
    for phase in phases:
        run.until(phase.reached, phase.name)
        run.signal(signal.SIGTERM)
        assert run.state()["type"] == "CRASHED", run.told()
        s3_scenario.assert_nothing_left()
        phase.let_go()
        run.resume()
    assert_nothing_lost(run.wait())


@pytest.mark.soak
@pytest.mark.parametrize("phase", PHASES)
def test_run__whose_process_got_sigterm_is_resumed(
    s3_scenario: S3Scenario, proxy: S3Proxy, begin: Begin, phase: str
) -> None:
    stands = only(phase, s3_scenario, proxy)
    run = begin(s3_scenario)
    run.until(stands.reached)
    run.signal(signal.SIGTERM)
    assert run.state()["type"] == "CRASHED", run.told()
    s3_scenario.assert_nothing_left()
    stands.let_go()
    assert_nothing_lost(run.resume().wait())


@pytest.mark.parametrize(
    "phase", [one if one == "inferring" else pytest.param(one, marks=pytest.mark.soak) for one in PHASES]
)
def test_command__that_got_sigterm_leaves_a_run_that_can_be_resumed(
    s3_scenario: S3Scenario, proxy: S3Proxy, begin: Begin, thresher: Any, tmp_path: Path, phase: str
) -> None:
    stands = only(phase, s3_scenario, proxy)
    (tmp_path / "service.json").write_text(json.dumps(s3_scenario.fields))  # JSON is YAML
    environment = thresher.environment(s3_scenario.environment)
    log = tmp_path / "command.log"
    with log.open("wb") as output:
        command = subprocess.Popen(
            thresher.command(["run", tmp_path / "service.json"]), cwd=tmp_path, env=environment,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=processes.die_with_parent,
        )  # fmt: skip

    def reached() -> bool:
        assert command.poll() is None, log.read_text()
        return stands.reached()

    try:
        processes.poll(reached, lambda: f"{phase}: {log.read_text()}", RUN_SECONDS)
        command.terminate()
        assert command.wait(END_SECONDS) != 0
    finally:
        processes.stop(command)
    assert "Traceback" not in log.read_text()
    s3_scenario.assert_nothing_left()
    body = {"flow_runs": {"name": {"any_": [s3_scenario.fields["name"]]}}}
    begun = s3_scenario.ask("/flow_runs/filter", body)
    stands.let_go()
    if phase == "validating" and not begun:  # the command reads the output folder before the run exists
        assert_nothing_lost(begin(s3_scenario).wait())
        return
    (found,) = begun
    assert_nothing_lost(begin(s3_scenario, found["id"]).resume().wait())


def stands_still(run: FlowRun, starts: int = 0) -> bool:
    """Whether a run of two instances waits for its held items; earlier tries made `starts` starts of model servers."""
    scenario = run.scenario
    both = len(scenario.model_servers) == scenario.instances and scenario.starts() > starts
    return both and scenario.is_in_the_middle()


def test_run__with_several_instances_whose_process_got_sigterm_and_then_sigkill_is_resumed(
    scenario_of_two: Scenario, begin: Begin
) -> None:
    run = begin(scenario_of_two.prepare())
    run.until(lambda: stands_still(run))
    run.signal(signal.SIGTERM)
    assert run.state()["type"] == "CRASHED", run.told()
    scenario_of_two.assert_nothing_left()
    starts = scenario_of_two.starts()
    run.resume().until(lambda: stands_still(run, starts))
    assert run.signal(signal.SIGKILL) == -signal.SIGKILL
    scenario_of_two.assert_nothing_left()
    assert scenario_of_two.results() < 500
    scenario_of_two.gate.touch()
    assert_nothing_lost(run.resume().wait())


def stop_by_hand(run: FlowRun) -> None:
    """As a user does; in place of a worker, the test sends the signal."""
    body = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": True}
    run.scenario.ask(f"/flow_runs/{run.task_id}/set_state", body)


def assert_stopped_in_order(run: FlowRun) -> None:
    """Every item has its line, and the server knows the output manifest."""
    assert_nothing_lost(run, state="CANCELLED", may_fail="The run was stopped before it was processed.")
    labels = run.scenario.ask(f"/flow_runs/{run.task_id}")["labels"]
    assert labels["thresher.manifest"] == str(run.scenario.output / f"infer-result-{run.task_id}.manifest")


def test_run__with_several_instances_that_is_stopped_by_hand_ends_in_order(
    scenario_of_two: Scenario, begin: Begin
) -> None:
    run = begin(scenario_of_two.prepare())
    run.until(lambda: stands_still(run))
    stop_by_hand(run)
    run.signal(signal.SIGTERM)
    assert_stopped_in_order(run)


def test_run__that_is_stopped_by_hand_ends_in_order_if_the_signal_finds_it_at_its_end(
    scenario_of_two: Scenario, begin: Begin
) -> None:
    """A run sees by itself that it is to be stopped; a busy worker's signal comes when all is published."""
    with ApiProxy(scenario_of_two.api) as proxy:
        run = begin(scenario_of_two.prepare(), PREFECT_API_URL=proxy.api)
        run.until(lambda: stands_still(run))
        body = {"task_runs": {"name": {"like_": "publish"}}, "flow_runs": {"id": {"any_": [run.task_id]}}}
        with proxy.holding("PATCH", "/flow_runs/{id}/labels") as held:
            stop_by_hand(run)
            run.until(
                lambda: [one["state_type"] for one in scenario_of_two.ask("/task_runs/filter", body)] == ["COMPLETED"]
            )
            assert held.wait(RUN_SECONDS)
            assert run.process is not None
            run.process.terminate()
        run.wait()
        assert_stopped_in_order(run)
