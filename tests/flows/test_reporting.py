"""What the server is told of a run: keys of its artifacts, words of its output path."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from tasks.prefect_side.reporting import artifact_key


def test_artifact_key__is_the_name_where_that_is_allowed_and_is_shared_by_no_other() -> None:
    assert artifact_key("digits-by-form", "summary") == "digits-by-form-summary"
    names = ["a-b", "a_b", "A-b", "a-b-", "-a-b", "--", "__", "a--b"]
    keys = [artifact_key(name, "summary") for name in names]
    assert len(set(keys)) == len(names)
    assert all(key.strip("-") == key and set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for key in keys)


@pytest.mark.slow
@pytest.mark.prefect
def test_output_path__of_a_scheduled_service_has_the_date_of_the_schedules_time_zone(
    run_service, running, write_files, tmp_path
):
    zone = "Pacific/Kiritimati"  # 14 hours ahead of UTC
    write_files(tmp_path / "in", {"a.bin": b"x"})
    began = datetime.now(ZoneInfo(zone))
    ran = run_service(
        **running, input_path=str(tmp_path / "in"), request_path="/",
        output_path=str(tmp_path / "out" / "{scheduled_time:%d-%H}"), schedule={"cron": "0 2 * * *", "timezone": zone},
    )  # fmt: skip
    assert ran.state == "Completed"
    (made,) = (tmp_path / "out").iterdir()
    assert made.name in {f"{when:%d-%H}" for when in (began, datetime.now(ZoneInfo(zone)))}
