"""What an instance is started with, and when it is given up."""

from __future__ import annotations

from pathlib import Path

from tasks.domain.instance import MAX_DEATHS_IN_A_ROW, Deaths, Launch, server_environment


def test_instance__the_model_server_gets_what_any_program_needs_and_what_the_service_gives() -> None:
    own = {
        "PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "0", "AWS_SECRET_ACCESS_KEY": "no",
        "OBS_ACCESS_KEY_ID": "no", "PREFECT_API_KEY": "no", "PREFECT_API_URL": "no", "THRESHER_X": "no",
        "MY_TOKEN": "no",
        "PYTHONPATH": "no", "VIRTUAL_ENV": "no",
    }  # fmt: skip
    found = server_environment(own, {"MODEL": "x", "PATH": "/other"})
    assert "no" not in found.values()
    assert found["MODEL"] == "x"
    assert found["PATH"] == "/other"
    assert {"HOME", "LC_ALL", "CUDA_VISIBLE_DEVICES", "PYTHONUNBUFFERED"} <= found.keys()


def test_instance__a_launch_does_not_show_its_environment() -> None:
    assert "hunter2" not in repr(Launch(("sh", "run.sh"), Path("/m"), {"TOKEN": "hunter2"}))


def test_instance__is_given_up_after_too_many_deaths_without_an_answer_in_between() -> None:
    deaths = Deaths()
    assert [deaths.died() for _ in range(MAX_DEATHS_IN_A_ROW)] == [False] * (MAX_DEATHS_IN_A_ROW - 1) + [True]
    patient = Deaths()
    for _ in range(5):
        assert not any(patient.died() for _ in range(MAX_DEATHS_IN_A_ROW - 1))
        patient.answered()
    assert patient.total == 5 * (MAX_DEATHS_IN_A_ROW - 1)
