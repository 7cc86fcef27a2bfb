"""What an instance is started with, and when it is given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.domain.instance import (
    MAX_DEATHS_IN_A_ROW,
    Deaths,
    DeviceKind,
    Launch,
    Limits,
    device_variables,
    instance_environment,
    server_environment,
    thread_variables,
)
from tasks.domain.pool import Flavor


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


def test_limits__are_what_the_flavor_says() -> None:
    assert Limits.of(Flavor(name="small", cpu=0.5, memory_gb=1.5)) == Limits(cpu=0.5, memory_bytes=3 * 1024**3 // 2)


@pytest.mark.parametrize(("cpu", "threads"), [(0.5, "1"), (1, "1"), (2.9, "2"), (8, "8")])
def test_thread_variables__are_the_whole_cores_and_at_least_one(cpu: float, threads: str) -> None:
    found = thread_variables(cpu)
    assert set(found.values()) == {threads}
    assert {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"} <= found.keys()


@pytest.mark.parametrize(
    ("kind", "cuda", "nvidia", "hip", "ascend"),
    [("gpu", "1,3", "1,3", "1,3", ""), ("npu", "", "void", "-1", "1,3")],
)
def test_device_variables__show_the_given_ones_and_hide_the_other_kind(
    kind: DeviceKind, cuda: str, nvidia: str, hip: str, ascend: str
) -> None:
    assert device_variables(["1", "3"], kind) == {
        "CUDA_VISIBLE_DEVICES": cuda,
        "NVIDIA_VISIBLE_DEVICES": nvidia,
        "HIP_VISIBLE_DEVICES": hip,
        "ASCEND_RT_VISIBLE_DEVICES": ascend,
    }


def test_device_variables__hide_all_from_an_instance_without_any() -> None:
    assert device_variables([]) == device_variables([], "npu")
    assert list(device_variables([]).values()) == ["", "void", "-1", ""]


def test_instance_environment__lets_the_service_choose_threads() -> None:
    own = {"PATH": "/bin", "OMP_NUM_THREADS": "64", "MKL_NUM_THREADS": "64"}
    found = instance_environment(own, {"OMP_NUM_THREADS": "3", "MODEL": "x"}, Limits(2, 1024))
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["MKL_NUM_THREADS"] == "2"
    assert (found["PATH"], found["MODEL"]) == ("/bin", "x")


def test_instance_environment__without_a_flavor_is_what_was_given_and_libraries_tell_nobody() -> None:
    silent = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1"}
    assert instance_environment({"A": "1", "CUDA_VISIBLE_DEVICES": "0"}, {"A": "2"}, None) == {
        **silent, "A": "2", "CUDA_VISIBLE_DEVICES": "0"
    }  # fmt: skip
    assert instance_environment({}, {"ORT_DISABLE_TELEMETRY": "0"}, None)["ORT_DISABLE_TELEMETRY"] == "0"


def test_instance__is_given_up_after_too_many_deaths_without_an_answer_in_between() -> None:
    deaths = Deaths()
    assert [deaths.died() for _ in range(MAX_DEATHS_IN_A_ROW)] == [False] * (MAX_DEATHS_IN_A_ROW - 1) + [True]
    patient = Deaths()
    for _ in range(5):
        assert not any(patient.died() for _ in range(MAX_DEATHS_IN_A_ROW - 1))
        patient.answered()
    assert patient.total == 5 * (MAX_DEATHS_IN_A_ROW - 1)
