from __future__ import annotations

import pytest

from tasks.domain.status import PHASES, Phase, RunReport, Status, report_of, status_of


@pytest.mark.parametrize(
    ("state", "phase", "sick", "status"),
    [
        (None, "validating", 0, "Stopped"),
        ("SCHEDULED", "validating", 0, "Deploying"),
        ("PENDING", "validating", 0, "Deploying"),
        ("PAUSED", "inferring", 0, "Deploying"),
        ("RUNNING", "validating", 0, "Deploying"),
        ("RUNNING", "planning", 0, "Deploying"),
        ("RUNNING", "preparing", 0, "Deploying"),
        ("RUNNING", "preparing", 1, "Deploying"),
        ("RUNNING", "inferring", 0, "Running"),
        ("RUNNING", "inferring", 1, "Concerning"),
        ("RUNNING", "publishing", 1, "Running"),
        ("RUNNING", "done", 0, "Running"),
        ("CANCELLING", "inferring", 1, "Stopping"),
        ("CANCELLED", "inferring", 0, "Stopped"),
        ("COMPLETED", "done", 0, "Completed"),
        ("FAILED", "inferring", 2, "Failed"),
        ("CRASHED", "inferring", 0, "Failed"),
    ],
)
def test_status__follows_from_the_state_and_what_the_run_says(
    state: str | None, phase: Phase, sick: int, status: Status
) -> None:
    assert status_of(state, RunReport(phase=phase, sick_instances=sick)) == status


def test_report__is_the_same_after_a_journey_through_labels() -> None:
    report = RunReport(
        phase="inferring", items=300, done=17, failed=2, sick_instances=1, manifest="s3://b/m", summary="s3://b/s",
        outage="HTTP 503", outage_since=1764000000.5, resumable=True,
    )  # fmt: skip
    labels = {"prefect.flow.id": "x", **report.labels()}
    assert report_of(labels) == report
    assert all(isinstance(value, (str, int, float)) for value in labels.values())  # all that a label may be


def test_report__of_a_run_that_has_said_nothing_is_its_beginning() -> None:
    assert report_of({}) == RunReport()
    assert report_of({"prefect.flow.id": "x"}).phase == PHASES[0]


def test_report__of_a_newer_version_may_say_more() -> None:
    assert report_of({"thresher.phase": "planning", "thresher.mood": "fine"}) == RunReport(phase="planning")


def test_report__of_labels_that_make_no_sense_is_the_beginning() -> None:
    assert report_of({"thresher.phase": "warming"}) == report_of({"thresher.items": "many"}) == RunReport()


def test_status__of_a_run_that_waits_for_its_model_server_to_begin_is_concerning() -> None:
    waits = RunReport(phase="preparing", sick_instances=1, outage="no connection", outage_since=1.0)
    assert (status_of("RUNNING", waits), status_of("PENDING", waits)) == ("Concerning", "Deploying")
