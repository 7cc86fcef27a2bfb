"""What model servers print: in the Logs tab, beside the results, and with runtime_log_output elsewhere too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import processes

from deployments.services import lifecycle

LINES = 2000


@pytest.mark.parametrize("exported", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_logs__are_in_the_tab_beside_the_results_and_in_the_store(
    stack, fields, name, tmp_path, package, thresher, exported
):
    model = package()
    script = f'i=0\nwhile [ $i -lt {LINES} ]; do i=$((i+1)); echo "line $i of many"; done\n'
    (model / "run.sh").write_text(script + (model / "run.sh").read_text())
    lifecycle.deploy(fields(model=str(model), instances=2, runtime_log_output=exported))
    run = stack.completed(name).last_run

    def tab() -> str:
        return str(stack.log(run.id))

    # (Prefect hands log lines on every two seconds, so the last ones come after the run has ended.)
    parts = ["instance-0: line 1 of many", "instance-1: line 1 of many", "not shown"]
    processes.poll(lambda: all(part in tab() for part in parts), lambda: f"{parts} in the Logs tab: {tab()[-3000:]}")
    assert tab().count(" of many") < 2 * LINES  # some are held back, and that is said
    texts = sorted(Path(run.manifest.removesuffix(".manifest") + ".logs").iterdir())
    expected = [f"line {number} of many" for number in range(1, LINES + 1)]
    for text in texts:
        assert [line for line in text.read_text().splitlines() if line.endswith(" of many")] == expected
    assert len(texts) == 2

    ran = thresher("logs", name, "--store", "--json", env=stack.environment)
    group = Path(stack.environment["THRESHER_LOG_STORE"], name)
    if not exported:
        assert ran.returncode == 2 and "runtime_log_output" in ran.stderr and not group.exists()
        assert stack.collector.received(service__name=name) == []
        return
    assert ran.returncode == 0, ran.stderr
    stored = [json.loads(line) for line in ran.stdout.splitlines()]
    for instance in range(2):
        found = [one["message"] for one in stored if one["level"] == f"#{instance}" and " of many" in one["message"]]
        assert found == expected
    assert sorted(path.name for path in group.iterdir()) == [f"{run.id}-instance-{number}" for number in range(2)]
    sent = stack.collector.received(service__name=name, thresher__task_id=run.id)
    assert sorted(one.body for one in sent if " of many" in one.body) == sorted(2 * expected)
    assert {one.attributes["thresher.stream"] for one in sent} == {path.name for path in group.iterdir()}
