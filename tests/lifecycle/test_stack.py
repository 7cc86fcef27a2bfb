"""`thresher up` as a user starts and ends it: twice, by Ctrl-C, by force, on a port that is taken, behind a proxy."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from fakes import processes
from fakes.local_stack import POOLS, START_SECONDS, LocalStack, local_stack, start_up

ONE_AT_A_TIME = """
name: one-at-a-time
kind: process
access: dedicated
contact: the tests
max_runs: 1
flavors:
  - {name: cpu-1, cpu: 1, memory_gb: 2}
"""
pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group("stack")]


@pytest.fixture
def up(tmp_path: Path, processes_of: Callable[[Path], Mapping[int, str]]) -> Callable[[], Any]:
    """Starts the stack of this test's folder, with more variables if they are given.

    `up.environment` are its variables without those, `up.left` the processes that it has started and that still run.
    """
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = others | {"TMPDIR": str(temporary)}

    @contextmanager
    def start(**more: str) -> Iterator[LocalStack]:
        with local_stack(tmp_path / "up", environment | more) as stack:
            yield stack

    start.environment = environment  # type: ignore[attr-defined]
    start.left = lambda: processes_of(temporary)  # type: ignore[attr-defined]
    return start


def ask(stack: LocalStack, path: str, body: object = None, **more: Any) -> requests.Response:
    """An answer of the stack's API to its owner; a body is posted."""
    method = "GET" if body is None else "POST"
    return requests.request(method, stack.api + path, json=body, auth=stack.password, timeout=60, **more)


def test_up__called_again_says_where_it_runs_and_ctrl_c_stops_everything(up, thresher, fields, name, tmp_path):
    with up(THRESHER_POOLS=str(POOLS)) as stack:
        assert requests.get(f"{stack.ui}/", timeout=60).ok and "Ctrl-C" in stack.output.read_text()
        names = [one["name"] for one in json.loads(thresher("pools", "list", "--json", env=stack.environment).stdout)]
        assert {"public-cpu", "public-gpu"} <= set(names)
        form = ask(stack, "/deployments/name/deploy_service/deploy-service").json()
        assert form["work_pool_name"] == "console"
        asked = ask(stack, "/work_pools/console/workers/filter", {}).json()
        assert [(one["name"], one["status"]) for one in asked] == [("local console", "ONLINE")]
        assert form["parameter_openapi_schema"]["definitions"]["BatchService"]["properties"]["resource_pool"]["enum"]

        spec = tmp_path / "spec.yaml"
        spec.write_text(yaml.safe_dump(fields(resource_pool="dedicated-example")))
        waiting = thresher("deploy", spec, env=stack.environment)
        assert waiting.returncode == 0 and "No worker of dedicated-example is running" in waiting.stderr
        assert "Stopped" in thresher("stop", name, env=stack.environment).stdout

        again = thresher("up", "--port", stack.port, env=stack.environment)
        assert (again.returncode, again.stdout) == (0, f"{stack.ui}\n") and "Runs already" in again.stderr
        assert "--port" not in again.stderr
        said = (stack.folder / "stack.json").read_text()
        log = (stack.folder / "server.log").read_text()
        elsewhere = thresher("up", "--port", processes.free_port(), env=stack.environment)
        assert (elsewhere.returncode, elsewhere.stdout) == (0, f"{stack.ui}\n")
        assert f"Runs already at {stack.ui}; --port is not used." in elsewhere.stderr
        assert (stack.folder / "stack.json").read_text() == said
        assert (stack.folder / "server.log").read_text().startswith(log)
        assert stack.process.poll() is None and up.left()
        lock = str(stack.folder / "lock")
        assert lock in _open_files(stack.process.pid)
        assert not [pid for pid in up.left() if pid != stack.process.pid and lock in _open_files(pid)]

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
        processes.poll(lambda: status(stack) == "Running", lambda: stack.output.read_text())
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


def test_up__called_twice_at_once_on_two_ports_runs_one_stack(up, tmp_path):
    environment = {**up.environment, "THRESHER_STACK": str(tmp_path / "stack")}
    ports = processes.free_port(), processes.free_port()
    outputs = [tmp_path / f"up-{port}.log" for port in ports]
    calls = [start_up(port, output, environment) for port, output in zip(ports, outputs, strict=True)]
    try:
        urls = [f"http://127.0.0.1:{port}\n" for port in ports]

        def told() -> list[str]:
            return [url for url in urls if all(url in output.read_text() for output in outputs)]

        def texts() -> list[str]:
            return [output.read_text() for output in outputs]

        (url,) = processes.poll(told, texts, START_SECONDS)
        first = urls.index(url)
        assert calls[1 - first].wait(180) == 0 and calls[first].poll() is None
        assert "--port is not used" in outputs[1 - first].read_text()
        assert requests.get(f"{url.strip()}/api/health", timeout=60).ok
    finally:
        for call in calls:
            processes.stop(call, 90)
    processes.poll(lambda: not up.left(), up.left)


def test_up__ctrl_c_during_a_run_leaves_a_complete_manifest_and_the_waiting_run_to_the_next_one(
    up, thresher, fields, name, tmp_path
):
    gate, out = tmp_path / "gate", tmp_path / "out"
    pools = tmp_path / "pools"
    pools.mkdir()
    (pools / "one-at-a-time.yaml").write_text(ONE_AT_A_TIME)
    spec = tmp_path / "spec.yaml"
    items = {"a.bin": f"FAIL:until:{gate} ", "b.bin": f"FAIL:until:{gate} b"}
    spec.write_text(yaml.safe_dump(fields(items, resource_pool="one-at-a-time")))

    def statuses(stack: LocalStack) -> list[str]:
        """Of the runs, the first of them first."""
        ran = thresher("show", name, "--runs", "--json", env=stack.environment)
        assert ran.returncode == 0, ran.stderr
        return [str(one["status"]) for one in json.loads(ran.stdout)][::-1]

    with up(THRESHER_POOLS=str(pools)) as stack:
        ran = thresher("deploy", spec, env=stack.environment)
        assert ran.returncode == 0, ran.stderr
        processes.poll(lambda: statuses(stack) == ["Running"], lambda: stack.output.read_text())
        assert thresher("start", name, env=stack.environment).returncode == 0
        assert statuses(stack) == ["Running", "Deploying"]
        assert stack.interrupt() == 0
        assert "1 run is being stopped" in stack.output.read_text()
        assert "Stopped: no process is left." in stack.output.read_text()
        assert not up.left()
    (manifest,) = out.glob("infer-result-*.manifest")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [(Path(one["source"]).name, one["result"]) for one in lines] == [("a.bin", "FAILED"), ("b.bin", "FAILED")]
    assert not list(out.glob(".infer-result-*")) and not list((tmp_path / "tmp").glob("thresher-*"))

    gate.touch()
    with up(THRESHER_POOLS=str(pools)) as stack:
        processes.poll(
            lambda: statuses(stack) == ["Stopped", "Completed"],
            lambda: f"Stopped, Completed: {statuses(stack)}\n{stack.output.read_text()}",
            240,
        )
        assert stack.interrupt() == 0
        assert "being stopped" not in stack.output.read_text().rpartition("Ctrl-C stops everything.")[2]


def test_up__behind_a_proxy_variable_it_is_not_asked_for_this_machine(up, thresher, fields, name, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(fields({"a.bin": "a"})))
    with processes.closed_port() as port, up(HTTP_PROXY=f"http://127.0.0.1:{port}", NO_PROXY="example.org") as stack:
        ran = thresher("deploy", spec, "--wait", env=stack.environment)
        assert ran.returncode == 0, ran.stderr
        said = thresher("logs", name, env=stack.environment)
        assert said.returncode == 0 and said.stdout
        assert name in thresher("list", env=stack.environment).stdout
        assert stack.interrupt() == 0


def _open_files(pid: int) -> list[str]:
    """What a process has open; nothing if it has ended."""
    found = []
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.append(os.readlink(link))
    return found
