"""``make demo``: both example packages on their data, and what a newcomer is shown."""

from __future__ import annotations

import re
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
