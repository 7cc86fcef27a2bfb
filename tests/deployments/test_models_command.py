"""``thresher models`` when it is interrupted, and what the commands say of a specification."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import die_with_parent

from deployments.services.specification import read_specification
from tasks.domain.errors import SpecificationError
from tasks.domain.specification import require

LEAST = "model: iris\ninput_path: s3://b/in\noutput_path: s3://b/out\n"


# -- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_register__that_is_interrupted_leaves_an_abnormal_version_and_no_process(
    thresher: Any, command: Any, package: Any, tmp_path: Path, poll: Any, processes_of: Any, number: signal.Signals
) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    env = {"THRESHER_MODEL_STORE": str(tmp_path / "store")}
    sick = package("--health", "never", "--spawn-child", "setsid", folder="sick")
    process = subprocess.Popen(
        thresher.command(["models", "register", sick, "--name", "fake"]), cwd=tmp_path, text=True,
        env=thresher.environment({**env, "TMPDIR": str(tmp)}), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True, preexec_fn=die_with_parent,
    )  # fmt: skip
    try:
        poll(lambda: "sleep 3600" in " ".join(processes_of(tmp).values()), "the model server's child")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=180)
        left = processes_of(tmp)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, stdout) == (1, ""), stderr
    assert "Traceback" not in stderr and "Stopped before the end" in stderr
    assert left == {}
    assert list(tmp.glob("thresher-*")) == []

    (listed,) = json.loads(command("models", "list", "--json", env=env).stdout)
    assert (listed["state"], listed["reason"]) == ("Abnormal", "registering was interrupted")
    good = package()
    done = command("models", "register", good, "--name", "fake", env=env)
    assert (done.returncode, done.stdout) == (0, "fake 0.0.1 Normal\n"), done.stderr
    stored = next((tmp_path / "store").rglob("run.sh"))
    assert "never" not in stored.read_text()  # the package of the first try is gone
    done = command("models", "register", sick, "--name", "fake", env=env)
    assert (done.returncode, done.stdout) == (2, "") and "fake has this version already" in done.stderr
    assert "never" not in stored.read_text()


def test_list__of_a_model_that_is_not_there_exits_2(command: Any, tmp_path: Path) -> None:
    done = command("models", "list", "nope", env={"THRESHER_MODEL_STORE": str(tmp_path / "store")})
    assert (done.returncode, done.stdout) == (2, "")
    assert "NAME = 'nope': there is no such model; there are: none yet" in done.stderr
    assert "Traceback" not in done.stderr


# -- warnings, and the joined request -------------------------------------------------------------------------------


def spec_of(folder: Path, running: dict[str, str], **fields: Any) -> Path:
    """A specification of a service with rows as its input."""
    (folder / "rows").mkdir()
    (folder / "rows" / "1.csv").write_text("1,2\n3.50,4\n5,6\n")
    path = folder / "spec.yaml"
    base = {"name": "told", **running, "input_path": "rows", "output_path": "out", "request_path": "/iris"}
    path.write_text(json.dumps({**base, **fields}))
    return path


@pytest.mark.prefect
def test_run__prints_warnings_on_standard_error(
    thresher: Any, running: dict[str, str], prefect_server: str, tmp_path: Path
) -> None:
    fields = {"input_1": {"type": "number", "index": 0}, "input_2": {"type": "number"}}
    row = {"type": "object", "properties": fields}
    mapping = {
        "type": "object",
        "properties": {"data": {"type": "object", "properties": {"req_data": {"type": "array", "items": [row]}}}},
    }
    path = spec_of(tmp_path, running, mapping=mapping, environment={"DB_PASSWORD": "hunter22"})
    done = thresher("run", path, env={"PREFECT_API_URL": prefect_server})
    assert done.returncode == 0, done.stderr
    assert "hunter22" not in done.stdout + done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert any("environment.DB_PASSWORD looks like a secret in plain text" in line for line in warnings)
    assert "{{ prefect.blocks.secret.NAME }}" in "".join(warnings)
    assert any("mapping: data.req_data[0].input_2 has no usable index" in line for line in warnings), warnings
    assert len(warnings) == 2
    assert done.stdout.count("\n") == 1 and Path(done.stdout.strip()).is_file()


def test_validate__shows_a_joined_first_request(command: Any, running: dict[str, str], tmp_path: Path) -> None:
    path = spec_of(tmp_path, running, rows_per_request=2)
    done = command("validate", path)
    assert done.returncode == 0, done.stderr
    joined = '{"data":{"req_data":[{"input_1":1,"input_2":2},{"input_1":3.50,"input_2":4}]}}'
    assert joined in done.stdout.splitlines()
    assert "3 rows" in done.stdout


# -- numbers that are texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1.10", "1", "0010", "1e3", "2026-01-31"])
def test_set__keeps_the_text_of_a_version(tmp_path: Path, value: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(LEAST)
    fields = read_specification(path, [f"model_version={value}", f"environment.A={value}", f"name={value[:4]}"])
    assert (fields["model_version"], fields["environment"]["A"]) == (value, value)
    assert require({**fields, "name": "x"}).model_version == value


def test_specification__takes_whole_numbers_of_text_fields_as_text(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(LEAST + "name: 42\nmodel_version: 1\ndescription: 7\nenvironment: {WORKERS: 4}\n")
    service = require(read_specification(path))
    assert (service.name, service.model_version, service.description) == ("42", "1", "7")
    assert service.environment == {"WORKERS": "4"}


def test_specification__keeps_a_version_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    for written in ("1.10", "'1.10'"):
        path.write_text(LEAST + f"model_version: {written}\n")
        assert require(read_specification(path)).model_version == "1.10"
    with pytest.raises(SpecificationError, match="should be text: write it in quotes"):
        require({**read_specification(path), "model_version": 1.1})  # as a form or Python may give it


@pytest.mark.parametrize("name", ["bad name!", "", "x" * 65, "汉字", "a\n"])
def test_name__that_is_wrong_says_what_would_be_right(name: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        require({"model": "iris", "input_path": "in", "output_path": "out", "name": name})
    assert "should be 1-64 letters, digits, '-' or '_'" in str(caught.value)
    assert len(caught.value.problems) == 1


# -- prune ----------------------------------------------------------------------------------------------------------


def test_prune__says_how_many_bytes_it_has_removed(command: Any, tmp_path: Path) -> None:
    env = {"THRESHER_CACHE": str(tmp_path / "cache")}
    made = tmp_path / "cache" / "environments" / ("a" * 24)
    made.mkdir(parents=True)
    (made / ".complete").write_text("x")
    done = command("models", "prune", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 removed, 0 bytes; kept: 0 in use, 1 used in the last 30 days" in done.stdout
    dry = json.loads(command("models", "prune", "--all", "--dry-run", "--json", env=env).stdout)
    assert dry["removed"] == [str(made)] and made.exists()
    done = command("models", "prune", "--days", "0", env=env)
    assert "1 removed, " in done.stdout and not made.exists()
    done = command("models", "prune", "--days", "-1", env=env)
    assert (done.returncode, done.stdout) == (2, "") and "--days = '-1.0': should be a number of days" in done.stderr
