"""``make demo``: both example packages on their data, and what a newcomer is shown."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import die_with_parent

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def test_demo__shows_results_accuracies_and_where_to_go_on(thresher: Any, prefect_server: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deployments.demo", tmp_path / "demo"], cwd=Path(__file__).parents[2], text=True,
        env=thresher.environment({"PREFECT_API_URL": prefect_server}), stdin=subprocess.DEVNULL, capture_output=True,
        timeout=300, preexec_fn=die_with_parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = done.stdout
    right = {name: float(share) for name, share in re.findall(r"^  (\w+) +\d+ of \d+ right: ([\d.]+)$", text, re.M)}
    assert set(right) == {"iris", "digits"}
    assert min(right.values()) > 0.95
    assert "1 of 1 items SUCCESSFUL, 0 FAILED" in text
    digits = next((tmp_path / "demo" / "digits").glob("infer-result-*.manifest"))
    for line in digits.read_text().splitlines()[:3]:
        assert line in text
    assert re.search(r"^    +digit-\d+\.png_result\.txt$", text, re.M)  # the tree
    assert re.search(r"^ +\.\.\. \d+ more$", text, re.M)
    assert '"predicted_label"' in text  # the first result file
    assert "Where to go on" in text and "infra/models/README.md" in text
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo__that_is_stopped_says_so_without_a_trace_and_leaves_nothing(
    thresher: Any, prefect_server: str, tmp_path: Path, poll: Any, processes_of: Any, number: signal.Signals
) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    environment = thresher.environment({"PREFECT_API_URL": prefect_server, "TMPDIR": str(tmp)})
    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.demo", tmp_path / "demo"], cwd=Path(__file__).parents[2], text=True,
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, preexec_fn=die_with_parent,
    )  # fmt: skip
    try:
        # Its first run has a plan: the model server is being prepared, or asked already.
        poll(lambda: list(tmp_path.glob("demo/iris/.infer-result-*/plan.json")), "the plan", seconds=120)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 1, stderr
        assert "Stopped before the end: nothing is left running" in stderr and "Traceback" not in stderr
        poll(lambda: not processes_of(tmp), lambda: processes_of(tmp))
        assert list(tmp.glob("thresher-*")) == []
    finally:
        process.kill()
        process.communicate()
