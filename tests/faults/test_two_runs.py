"""Two concurrent runs without faults, with the same output folder: neither disturbs the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from faults.scenario import FlowRun, Scenario, assert_nothing_lost

pytestmark = [pytest.mark.slow, pytest.mark.prefect]


def test_runs__that_write_into_one_folder_are_both_complete(scenario: Scenario, begin: Callable[..., FlowRun]) -> None:
    scenario.prepare()
    one, other = begin(scenario), begin(scenario)
    for run in (one, other):
        run.until(lambda run=run: len(list(scenario.output.glob(f"infer-result-{run.task_id}/*/*"))) > 60)
    scenario.gate.touch()
    for run in (one, other):
        run.wait()
    for run, beside in ((one, other), (other, one)):
        summary = assert_nothing_lost(run, others=(beside.task_id,))
        assert summary["items"] == {"planned": 520, "successful": 500, "failed": 20, "not_processed": 0}
        assert summary["model_server_deaths"] == 0 and len(summary["top_causes"]) == 3
    scenario.assert_nothing_left()
