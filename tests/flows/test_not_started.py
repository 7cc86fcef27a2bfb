"""Runs whose model server is not there: every item has its line all the same, and a later run can go on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fakes.processes import free_port

from tasks.domain.run import RunFailed


def test_run__whose_model_server_is_away_accounts_for_every_item_and_is_retried_from_that(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    source = write_files(tmp_path / "in", {"1.jpg": "one", "2.jpg": "two"})
    lines = [*(json.dumps({"source": str(source / name)}) for name in ("1.jpg", "2.jpg")), "no line"]
    manifest = tmp_path / "in.manifest"
    manifest.write_text("\n".join(lines))
    away = f"http://127.0.0.1:{free_port()}/"
    ran = run_service(**running | {"model": away}, input_path=str(manifest), request_path="/", outage_minutes=0.02)
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    reason = (
        "he run was stopped early because no model server was there for 0.02 minutes: "
        f"The model server {away} is not healthy (GET /health: no connection (Connection refused))."
    )
    assert str(ran.error).startswith(f"T{reason} What was done is kept: resumed, the run does the rest.")
    assert [line for line in ran.logs if "No model server is there yet (no connection (Connection refused))" in line]
    unsent = f"Not processed: t{reason}"
    assert [one["error_message"] for one in ran.lines[:2]] == [unsent, unsent]
    assert ran.lines[2]["error_message"].startswith("Line 3 of the input manifest cannot be read: ")
    assert ran.summary["items"] == {"planned": 3, "successful": 0, "failed": 3, "not_processed": 2}
    results = [f"infer-result-{{id}}.{ending}" for ending in ("manifest", "summary.json")]
    assert [name for name in ran.top if not name.startswith(".")] == results

    again = run_service(
        **running, input_path=str(manifest), request_path="/", failed_of=ran.result.manifest, merge=True
    )  # fmt: skip
    assert again.state == "Completed", again.error
    assert [one["result"] for one in again.lines] == ["SUCCESSFUL", "SUCCESSFUL", "FAILED"]
