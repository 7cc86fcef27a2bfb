"""A flavor ends up where it counts: at the model servers of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.prefect]

POOL = {
    "name": "own",
    "kind": "process",
    "contact": "the tests",
    "flavors": [
        {"name": "small", "cpu": 1, "memory_gb": 0.25},
        {"name": "one-gpu", "cpu": 3, "memory_gb": 2, "accelerators": 1},
    ],
}


@pytest.fixture(autouse=True)
def pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool with accelerators, on a machine that has the two that the administrator names."""
    folder = tmp_path / "pools"
    folder.mkdir()
    (folder / "own.yaml").write_text(yaml.safe_dump(POOL))
    monkeypatch.setenv("THRESHER_POOLS", str(folder))
    monkeypatch.setenv("THRESHER_DEVICES", "GPU-aa,GPU-bb")


def test_flavor__gives_each_instance_its_threads_and_its_own_accelerator(run_service, write_files, package, tmp_path):
    write_files(tmp_path / "in", {f"{number}.bin": b"x" for number in range(20)})
    model = package()
    told = tmp_path / "told"
    told.mkdir()
    script = f'echo "$OMP_NUM_THREADS $CUDA_VISIBLE_DEVICES" > {told}/$PORT\n'
    (model / "run.sh").write_text(script + (model / "run.sh").read_text())
    ran = run_service(
        model=str(model), input_path=str(tmp_path / "in"), request_path="/", resource_pool="own", flavor="one-gpu",
        instances=2,
    )  # fmt: skip
    assert (ran.state, ran.result.successful) == ("Completed", 20)
    assert sorted(path.read_text() for path in told.iterdir()) == ["3 GPU-aa\n", "3 GPU-bb\n"]


def test_flavor__ends_a_model_server_that_takes_too_much_memory(run_service, write_files, package, tmp_path):
    write_files(tmp_path / "in", {"a.bin": b"x"})
    model = package(script="exec python -c 'import time; taken = bytearray(400 << 20); time.sleep(1000)'\n")
    ran = run_service(
        model=str(model), input_path=str(tmp_path / "in"), request_path="/", resource_pool="own", flavor="small"
    )
    assert ran.state == "Failed" and "memory" in str(ran.error) and "256 MiB" in str(ran.error), ran.error


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"resource_pool": "nowhere"}, ["resource_pool", "nowhere", "own"]),
        ({"resource_pool": "own", "flavor": "large"}, ["flavor", "large", "is not offered by own", "one-gpu"]),
        ({"resource_pool": "own", "flavor": "small"}, ["flavor", "small", "one-gpu", "does not satisfy the model"]),
    ],
)
def test_flavor__that_does_not_do_is_refused_with_those_that_would(
    run_service, write_files, package, tmp_path, fields, said
):
    write_files(tmp_path / "in", {"a.bin": b"x"})
    model = package(accelerators=1)
    ran = run_service(model=str(model), input_path=str(tmp_path / "in"), request_path="/", **fields)
    assert ran.state == "Failed"
    assert [one for one in said if one not in str(ran.error)] == [], ran.error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fields", [{}, {"flavor": "tiny"}])
def test_flavor__of_another_pool_that_would_do_is_named(run_service, write_files, package, tmp_path, fields):
    other = {"name": "cpu-only", "kind": "process", "flavors": [{"name": "tiny", "cpu": 1, "memory_gb": 1}]}
    (tmp_path / "pools" / "cpu-only.yaml").write_text(yaml.safe_dump(other))
    write_files(tmp_path / "in", {"a.bin": b"x"})
    ran = run_service(
        model=str(package(accelerators=1)), input_path=str(tmp_path / "in"), request_path="/",
        resource_pool="cpu-only", **fields,
    )  # fmt: skip
    assert ran.state == "Failed" and "flavors that do: none of cpu-only, but one-gpu of own" in str(ran.error)
