"""How a run ends early: its reason, and the sentences that users read."""

from __future__ import annotations

import pickle

import pytest

from tasks.domain.stop import BY_HAND, Stop, deadline_passed, threshold_passed


@pytest.mark.parametrize(
    ("stop", "item_message", "failure"),
    [
        (BY_HAND, "The run was stopped before it was processed.", ""),
        (
            deadline_passed(90),
            "Not processed: the run was stopped early because its deadline (90 minutes) had passed.",
            "The run was stopped early because its deadline (90 minutes) had passed.",
        ),
        (
            Stop(reason="outage", cause="it is away", resumable=True),
            "Not processed: the run was stopped early because it is away.",
            "The run was stopped early because it is away.",
        ),
        (
            Stop(reason="not started", cause="It ended.\nIt printed last:\n  oh"),
            "Not processed: It ended. oh",
            "It ended.\nIt printed last:\n  oh",
        ),
    ],
)
def test_stop__tells_why_an_item_was_not_sent_and_why_the_run_failed(
    stop: Stop, item_message: str, failure: str
) -> None:
    assert (stop.item_message, stop.failure) == (item_message, failure)


def test_stop__is_the_same_in_every_process() -> None:
    stop = deadline_passed(1)
    assert stop.cause == "its deadline (1 minute) had passed"
    assert pickle.loads(pickle.dumps(stop)) == stop and {stop, pickle.loads(pickle.dumps(stop))} == {stop}


@pytest.mark.parametrize(
    ("threshold", "failed", "cause"),
    [
        (None, 1000, ""),
        (3, 3, ""),
        (3, 4, "4 items had failed (error_threshold 3)"),
        (0.01, 10, ""),
        (0.01, 11, "11 items had failed (error_threshold 0.01)"),
        (0, 1, "1 items had failed (error_threshold 0)"),
    ],
)
def test_threshold__is_a_number_of_items_or_below_1_a_share_of_1000(
    threshold: float | None, failed: int, cause: str
) -> None:
    stop = threshold_passed(threshold, failed, 1000)
    assert (stop and (stop.reason, stop.cause)) == (("threshold", cause) if cause else None)
