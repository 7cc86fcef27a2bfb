"""``make demo`` when it is stopped; tests/test_readme.py looks at what it shows."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import die_with_parent

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
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
