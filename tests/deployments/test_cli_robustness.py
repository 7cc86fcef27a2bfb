"""The command when it is treated badly: stopped twice, its output taken away, odd items and specifications.

In a process of its own (`thresher`) where it runs a service, else in this one (`command`).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import PYTHONPATH, die_with_parent

pytestmark = pytest.mark.prefect

STOPPED = "Stopped before the end: nothing is left running, and there is no complete output manifest. "
MIB = 1 << 20


@pytest.fixture
def against_server(prefect_server: str) -> dict[str, str]:
    """Variables that lead the command to this worker's Prefect server."""
    return {"PREFECT_API_URL": prefect_server}


@pytest.fixture
def spec(tmp_path: Path, running: dict[str, str], write_files: Any) -> Callable[..., Path]:
    """Writes a specification; fields override."""

    def write(**fields: Any) -> Path:
        path = tmp_path / "spec.yaml"
        path.write_text(json.dumps({"name": "cli", **running, "input_path": "in", "output_path": "out", **fields}))
        return path

    return write


# -- stopped twice --------------------------------------------------------------------------------------------------


@pytest.fixture
def inferring(
    thresher: Any, package: Any, spec: Any, tmp_path: Path, poll: Any, write_files: Any, against_server: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run in the middle of a request that is never answered, and its own TMPDIR."""
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    state = tmp_path / "state.json"
    write_files(tmp_path / "in", {"1.jpg": "FAIL:hang", "2.jpg": "FAIL:hang 2"})
    path = spec(model=str(package("--state", str(state))), model_config=None)
    process = subprocess.Popen(
        thresher.command(["run", path]), cwd=tmp_path, env=thresher.environment({**against_server, "TMPDIR": str(tmp)}),
        text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=die_with_parent,
    )  # fmt: skip

    def hangs() -> bool:
        assert process.poll() is None, process.communicate()
        return state.exists() and bool(json.loads(state.read_text())["seen"])

    try:
        poll(hangs, "the request that hangs")
        yield process, tmp
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("apart_ms", "number"),
    [
        pytest.param(apart_ms, number, id=f"{number.name}-{apart_ms}", marks=[] if usual else [pytest.mark.soak])
        for number, often in ((signal.SIGINT, (50,)), (signal.SIGTERM, (3,)))
        for apart_ms in (0, 3, 20, 50, 100)
        for usual in [apart_ms in often]
    ],
)
def test_run__that_is_stopped_twice_says_so_once_and_leaves_nothing(
    inferring: tuple[subprocess.Popen[str], Path], processes_of: Any, poll: Any, apart_ms: int, number: signal.Signals
) -> None:
    process, tmp = inferring
    process.send_signal(number)
    time.sleep(apart_ms / 1000)  # what is tested: the second one comes while the first is being heard
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (1, ""), stderr
    assert "Traceback" not in stderr and "Error" not in stderr, stderr
    assert stderr.splitlines()[-1].startswith(STOPPED), stderr
    (scratch,) = (tmp.parent / "out").glob(".infer-result-*")
    task_id = scratch.name.removeprefix(".infer-result-")
    command = f"`thresher run {tmp.parent / 'spec.yaml'} --resume {task_id}`"
    assert stderr.endswith(f" It was run {task_id}: {command} goes on with it.\n")
    poll(lambda: not processes_of(tmp), lambda: processes_of(tmp))
    assert list(tmp.glob("thresher-*")) == []


CALLER = """
import sys
from flows.batch_service import batch_service
from tasks.domain.service import BatchService

batch_service(BatchService(model=sys.argv[1], input_path=sys.argv[2], output_path=sys.argv[3]))
"""


@pytest.mark.slow
def test_call__in_plain_python_that_is_interrupted_twice_leaves_nothing(
    thresher: Any, package: Any, tmp_path: Path, write_files: Any, poll: Any, processes_of: Any,
    against_server: dict[str, str],
) -> None:  # fmt: skip
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    state = tmp_path / "state.json"
    home = package("--state", str(state))
    # More shards than are worked on at once: some have not begun when the run is stopped.
    source = write_files(tmp_path / "in", {f"{number:02d}.jpg": f"FAIL:hang {number}" for number in range(12)})
    env = {**against_server, "TMPDIR": str(tmp), "PYTHONPATH": PYTHONPATH, "THRESHER_SHARD_ITEMS": "1"}
    log = tmp_path / "caller.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", CALLER, str(home), str(source), str(tmp_path / "out")], cwd=tmp_path,
            env=thresher.environment(env), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            preexec_fn=die_with_parent,
        )  # fmt: skip
    try:
        poll(lambda: state.exists() and json.loads(state.read_text())["seen"], "a request that hangs", seconds=120)
        process.send_signal(signal.SIGINT)
        time.sleep(0.03)  # as above
        process.send_signal(signal.SIGINT)
        process.wait(120)
        assert "was never awaited" not in log.read_text()
        poll(lambda: not processes_of(tmp), lambda: processes_of(tmp))
        assert list(tmp.glob("thresher-*")) == []
    finally:
        process.kill()
        process.wait()


# -- standard output ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["a pipe that is closed", "a full disk"])
def test_run__whose_result_nobody_takes_says_so_in_one_line(
    thresher: Any, spec: Any, tmp_path: Path, write_files: Any, against_server: dict[str, str], where: str
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "one"})
    if where == "a full disk":
        target = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    try:
        done = subprocess.run(
            thresher.command(["run", spec()]), cwd=tmp_path, env=thresher.environment(against_server), text=True,
            stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.PIPE, timeout=180, check=False,
            preexec_fn=die_with_parent,
        )  # fmt: skip
    finally:
        os.close(target)
    assert done.returncode == 1
    assert re.fullmatch(r"Standard output cannot be written: .+\.", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "out").glob("*.manifest"))) == 1


# -- specifications -------------------------------------------------------------------------------------------------


def test_run__tells_every_problem_at_once_like_validate(
    thresher: Any, command: Any, spec: Any, tmp_path: Path, write_files: Any, against_server: dict[str, str]
) -> None:
    write_files(tmp_path / "out", {"there.txt": "already"})
    path = spec(input_path="nowhere", instances=0)
    run, validate = (how(verb, path, env=against_server) for how, verb in ((thresher, "run"), (command, "validate")))
    assert (run.returncode, run.stdout) == (2, "")
    assert "(3 problems)" in run.stderr
    # In the contract's order.
    assert re.findall(r"^  - (\w+)", run.stderr, re.MULTILINE) == ["input_path", "output_path", "instances"]
    assert run.stderr == validate.stderr


def test_set__takes_a_description_with_a_colon_as_it_is(
    command: Any, spec: Any, tmp_path: Path, write_files: Any
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "one"})
    done = command("validate", spec(), "--set", "description=last week: again")
    assert done.returncode == 0, done.stderr


# -- validate -------------------------------------------------------------------------------------------------------


def test_validate__passes_over_items_that_a_run_would_refuse(
    command: Any, spec: Any, tmp_path: Path, write_files: Any
) -> None:
    write_files(tmp_path / "in", {"a.png": b"\0" * 12 * MIB, "b.png": b"small", "c.png": b"\0" * 13 * MIB})
    done = command("validate", spec(), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["request"]["item"] == f"{tmp_path}/in/b.png"
    assert found["plan"]["items"] == 3


def test_validate__counts_rows_and_shows_a_request_of_tables_only(
    command: Any, spec: Any, tmp_path: Path, write_files: Any
) -> None:
    write_files(tmp_path / "in", {"a.txt": "7,8\n9,10\n", "b.csv": b"1,x\n" * (4 * MIB), "c.csv": "1,x\n2,y\n"})
    done = command("validate", spec(request_path="/echo"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["request"]["item"] == f"{tmp_path}/in/c.csv"
    assert found["plan"]["rows"] == 2


def test_package__whose_configuration_is_too_large_or_asks_for_https_is_refused(
    command: Any, spec: Any, package: Any, tmp_path: Path, write_files: Any
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "one"})
    home = package(health={"protocol": "https"})
    done = command("validate", spec(model=str(home), model_config=None))
    assert done.returncode == 2 and "health.protocol of its config.json should be HTTP" in done.stderr
    (home / "config.json").write_bytes(b" " * (5 * MIB))
    done = command("validate", spec(model=str(home), model_config=None))
    assert done.returncode == 2 and "it should have at most 4194304" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWS_ENDPOINT_URL": "not a url", "AWS_ACCESS_KEY_ID": "a" * 20, "AWS_SECRET_ACCESS_KEY": "b" * 40},
         "should be http(s)://host[:port]"),
        ({"AWS_PROFILE": "nobody"}, "The config profile (nobody) could not be found"),
    ],
)  # fmt: skip
def test_storage__that_is_set_up_wrongly_is_told_in_one_answer(
    command: Any, spec: Any, variables: dict[str, str], said: str
) -> None:
    done = command("validate", spec(input_path="s3://bucket/in"), env=variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert "input_path = 's3://bucket/in': " in done.stderr and said in done.stderr
    assert "Traceback" not in done.stderr


# -- the environment -----------------------------------------------------------------------------------------------


def test_run__takes_a_relative_cache_and_prefects_log_level_in_any_case(
    thresher: Any, spec: Any, package: Any, tmp_path: Path, write_files: Any, against_server: dict[str, str]
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "one"})
    home = package()
    (home / "requirements.txt").write_text("")
    env = {**against_server, "THRESHER_CACHE": "relative-cache", "PREFECT_LOGGING_LEVEL": "error"}
    done = thresher("run", spec(model=str(home), model_config=None), env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "relative-cache").is_dir()


def test_run__without_a_place_for_prefects_database_is_refused_in_one_line(
    thresher: Any, spec: Any, tmp_path: Path, write_files: Any
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "picture"})
    environment = {**thresher.environment(), "PREFECT_API_URL": "", "HOME": "/proc/nope"}
    del environment["PREFECT_HOME"]
    done = subprocess.run(
        thresher.command(["run", spec()]), cwd=tmp_path, env=environment, text=True,
        capture_output=True, stdin=subprocess.DEVNULL, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    said = "PREFECT_HOME = '/proc/nope/.prefect': should be a folder in which Prefect can keep its database"
    assert said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
