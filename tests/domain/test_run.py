"""What is told of a run that has ended."""

from __future__ import annotations

import pytest

from tasks.domain.run import RunFailed, RunResult

RESULT = RunResult(
    task_id="t", name="n", manifest="/out/m", manifests=("/out/m",), summary="/out/s", items=1200, successful=200,
    failed=1000, seconds={},
)  # fmt: skip


def test_counts__name_what_was_never_sent_if_there_was_any() -> None:
    assert RESULT.counts == "200 of 1,200 items SUCCESSFUL, 1,000 FAILED"
    unsent = RESULT.model_copy(update={"not_processed": 900})
    assert unsent.counts == "200 of 1,200 items SUCCESSFUL, 1,000 FAILED (900 of them not processed)"


@pytest.mark.parametrize(("failure", "between"), [("It ended.", " "), ("It ended. It printed:\n  oh", "\n")])
def test_run_failed__says_where_the_manifest_is_after_the_reason(failure: str, between: str) -> None:
    failed = RunFailed(RESULT.model_copy(update={"failure": failure}))
    assert str(failed) == f"{failure}{between}Output manifest: /out/m"
