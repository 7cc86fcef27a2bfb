"""Runs whose model server, which runs elsewhere, is away: they wait, say so, and lose nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.model_server import FakeModelServer
from fakes.processes import meanwhile

from tasks.domain.run import RunFailed
from tasks.domain.status import report_of, status_of
from tasks.engine import progress

pytestmark = pytest.mark.prefect


@pytest.fixture
def refusing(tmp_path: Path) -> Path:
    """While this file exists, the model server refuses every request, with the status that it holds."""
    return tmp_path / "refusing"


@pytest.fixture
def model(refusing: Path) -> Iterator[FakeModelServer]:
    """A model server of this test's own."""
    with FakeModelServer("--refuse-while", str(refusing), "--service-time", "20", "--parallelism", "2") as one:
        yield one


@pytest.fixture
def fields(model: FakeModelServer, config: Any, tmp_path: Path, write_files: Any) -> dict[str, Any]:
    """A service that sends it sixty items."""
    source = write_files(tmp_path / "in", {f"{number:02d}.jpg": f"item {number}" for number in range(60)})
    return {"input_path": str(source), "name": tmp_path.name[-40:], "model": model.url, "model_config": config()}


def done(fields: dict[str, Any]) -> int:
    """How many items of the test's run are done; 0 before it has begun."""
    return sum(one.done for one in progress.runs().values() if one.service == fields["name"])


@pytest.mark.parametrize("kind", ["away", "refusing"])
def test_run__waits_for_a_model_server_that_is_away_and_says_so(
    run_service: Any, fields: dict[str, Any], model: FakeModelServer, refusing: Path, poll: Any, kind: str
) -> None:
    seen: list[tuple[str, str]] = []

    def take_away() -> None:
        poll(lambda: done(fields) >= 5)
        model.stop() if kind == "away" else refusing.write_text("503")

        def is_told() -> bool:
            (own,) = (one for one in progress.runs().values() if one.service == fields["name"])
            report = report_of(own.report.labels())
            if report.waits:
                seen.append((status_of("RUNNING", report), report.waits))
            return bool(seen)

        poll(is_told)
        model.start() if kind == "away" else refusing.unlink()

    with meanwhile(take_away):
        ran = run_service(**fields)
    assert ran.state == "Completed", ran.error
    assert ran.summary["items"] == {"planned": 60, "successful": 60, "failed": 0, "not_processed": 0}
    assert seen[0][0] == "Concerning"
    cause = "no connection" if kind == "away" else "HTTP 503"
    assert seen[0][1].startswith("waiting for the model server since ") and cause in seen[0][1]
    assert [line for line in ran.logs if "takes no request" in line and cause in line]
    assert [line for line in ran.logs if "takes requests again" in line]


def test_run__whose_model_server_stays_away_publishes_and_can_be_resumed(
    run_service: Callable[..., Any], fields: dict[str, Any], model: FakeModelServer, refusing: Path, poll: Any
) -> None:
    def take_away() -> None:
        poll(lambda: done(fields) >= 5)
        refusing.write_text("502")

    with meanwhile(take_away):
        ran = run_service(**fields, outage_minutes=0.05)
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    items = ran.summary["items"]
    assert items["planned"] == 60 == items["successful"] + items["failed"] and items["successful"] >= 5
    assert {message[:56] for message in ran.messages.values()} == {
        "SUCCESSFUL",
        "Not processed: the run was stopped early because the mod",
    }
    assert "has answered no request for 0.05 minutes (HTTP 502)." in ran.summary["failure"]
    refusing.unlink()
    again = run_service(again=ran.task_id, **fields)
    assert again.state == "Completed", again.error
    assert again.summary["items"] == {"planned": 60, "successful": 60, "failed": 0, "not_processed": 0}
    counts = model.stats()
    assert counts["requests"]["/"] - counts["statuses"]["502"] == 60  # what was done is not done again
    third = run_service(again=ran.task_id, **fields)
    assert third.summary == again.summary
