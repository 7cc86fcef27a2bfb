"""`thresher up` as a user starts and ends it: twice, by Ctrl-C, by force, on a port that is taken."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from fakes import processes
from fakes.local_stack import LocalStack, local_stack

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group("stack")]


@pytest.fixture
def up(tmp_path: Path, processes_of: Callable[[Path], Mapping[int, str]]) -> Callable[[], Any]:
    """Starts the stack of this test's folder; `up.left` are the processes that it has started and that still run."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}

    @contextmanager
    def start() -> Iterator[LocalStack]:
        with local_stack(tmp_path / "up", others | {"TMPDIR": str(temporary)}) as stack:
            yield stack

    start.left = lambda: processes_of(temporary)  # type: ignore[attr-defined]
    return start


def test_up__called_again_says_where_it_runs_and_ctrl_c_stops_everything(up, thresher, fields, name, tmp_path):
    with up() as stack:
        assert requests.get(f"{stack.ui}/", timeout=60).ok and "Ctrl-C" in stack.output.read_text()
        names = [one["name"] for one in json.loads(thresher("pools", "list", "--json", env=stack.environment).stdout)]
        assert {"public-cpu", "public-gpu"} <= set(names)
        form = requests.get(f"{stack.api}/deployments/name/deploy_service/deploy-service", timeout=60).json()
        assert form["work_pool_name"] == "console"
        asked = requests.post(f"{stack.api}/work_pools/console/workers/filter", json={}, timeout=60).json()
        assert [(one["name"], one["status"]) for one in asked] == [("local console", "ONLINE")]
        assert form["parameter_openapi_schema"]["definitions"]["BatchService"]["properties"]["resource_pool"]["enum"]

        spec = tmp_path / "spec.yaml"
        spec.write_text(yaml.safe_dump(fields(resource_pool="dedicated-example")))
        waiting = thresher("deploy", spec, env=stack.environment)
        assert waiting.returncode == 0 and "No worker of dedicated-example is running" in waiting.stderr
        assert "Stopped" in thresher("stop", name, env=stack.environment).stdout

        again = thresher("up", "--port", stack.port, env=stack.environment)
        assert (again.returncode, again.stdout) == (0, f"{stack.ui}\n") and "Runs already" in again.stderr
        assert stack.process.poll() is None and up.left()

        assert stack.interrupt() == 0
        assert "Stopped: no process is left." in stack.output.read_text()
        processes.poll(lambda: not up.left(), up.left)
        assert not (stack.folder / "stack.json").exists()
    said = thresher("list", env=stack.environment)
    assert said.returncode == 1 and len(said.stderr.splitlines()) == 1 and "thresher up" in said.stderr


def test_up__killed_leaves_no_process_and_the_next_one_ends_its_runs(up, thresher, fields, name, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(fields({"a.bin": f"FAIL:until:{tmp_path}/never "})))

    def status(stack: LocalStack) -> str:
        ran = thresher("show", name, "--json", env=stack.environment)
        assert ran.returncode == 0, ran.stderr
        return str(json.loads(ran.stdout)["status"])

    with up() as stack:
        ran = thresher("deploy", spec, env=stack.environment)
        assert ran.returncode == 0, ran.stderr
        processes.poll(lambda: status(stack) == "Running", lambda: stack.output.read_text(), 120)
        stack.process.kill()
        stack.process.wait()
        processes.poll(lambda: not up.left(), up.left)
    with up() as stack:
        assert status(stack) == "Failed"
        assert stack.interrupt() == 0
    processes.poll(lambda: not up.left(), up.left)


def test_up__a_port_that_is_taken_is_refused_in_one_line(up, thresher, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = thresher("up", "--port", port, env={"THRESHER_STACK": str(tmp_path / "stack")})
    assert (ran.returncode, ran.stdout) == (1, "")
    assert len(ran.stderr.splitlines()) == 1 and f"Port {port}" in ran.stderr and "--port" in ran.stderr
    ran = thresher("up", "--port", 77777, env={"THRESHER_STACK": str(tmp_path / "stack")})
    assert (ran.returncode, ran.stdout) != (0, "") and "Traceback" not in ran.stderr
