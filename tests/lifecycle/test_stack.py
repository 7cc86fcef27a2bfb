"""`thresher up` as a user starts and ends it: by Ctrl-C, by force, on a port that is taken, behind a proxy."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import processes
from fakes.local_stack import LocalStack, local_stack

from deployments.services import lifecycle, overview

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

    `up.left` are the processes that it has started and that still run.
    """
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = others | {"TMPDIR": str(temporary)}

    @contextmanager
    def start(**more: str) -> Iterator[LocalStack]:
        with local_stack(tmp_path / "up", environment | more) as stack, stack.spoken_to():
            yield stack

    start.left = lambda: processes_of(temporary)  # type: ignore[attr-defined]
    return start


def test_up__a_port_that_is_taken_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    from deployments.local_stack.stack import run_stack
    from deployments.terminal.door import guarded

    monkeypatch.setenv("THRESHER_STACK", str(tmp_path / "stack"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert guarded(lambda: run_stack(port), verbose=False) == 1
    said = capsys.readouterr()
    assert said.out == "" and not (tmp_path / "stack" / "stack.json").exists()
    assert len(said.err.splitlines()) == 1 and f"Port {port}" in said.err and "--port" in said.err


def test_up__stopped_and_killed_and_started_again_leaves_no_process_and_takes_the_waiting_runs(
    up, thresher, fields, name, tmp_path
):
    """Three stacks in turn: Ctrl-C ends the first during a run, force the second. All stand behind a proxy variable."""
    gate, out = tmp_path / "gate", tmp_path / "out"
    pools = tmp_path / "pools"
    pools.mkdir()
    (pools / "one-at-a-time.yaml").write_text(ONE_AT_A_TIME)
    spec = tmp_path / "spec.yaml"
    items = {"a.bin": f"FAIL:until:{gate} ", "b.bin": f"FAIL:until:{gate} b"}
    spec.write_text(yaml.safe_dump(fields(items, resource_pool="one-at-a-time")))

    def statuses() -> list[str]:
        """Of the runs, the first of them first."""
        return [str(one.status) for one in overview.runs(name)][::-1]

    def until(stack: LocalStack, files: str, number: int, *wanted: str) -> None:
        """Until there are so many files in the output folder, which is looked at in no time, and the runs stand so."""

        def what() -> str:
            return f"{files}, {wanted}: {statuses()}\n{stack.output.read_text()}"

        processes.poll(lambda: len(list(out.glob(files))) == number, what, 240)
        processes.poll(lambda: statuses() == list(wanted), what, 240)

    with processes.closed_port() as port:
        end = {
            "THRESHER_POOLS": str(pools), "HTTP_PROXY": f"http://127.0.0.1:{port}", "NO_PROXY": "example.org"
        }  # fmt: skip
        with up(**end) as stack:
            password = stack.password
            ran = thresher("deploy", spec, env=stack.environment)
            assert ran.returncode == 0, ran.stderr
            until(stack, ".infer-result-*/plan.json", 1, "Running")
            for _ in range(2):
                lifecycle.start(name)
            assert statuses() == ["Running", "Deploying", "Deploying"]
            assert stack.interrupt() == 0
            said = stack.output.read_text()
            assert "1 run is being stopped" in said and "Stopped: no process is left." in said
            assert not up.left() and not (stack.folder / "stack.json").exists()
        (manifest,) = out.glob("infer-result-*.manifest")
        lines = [json.loads(line) for line in manifest.read_text().splitlines()]
        assert [(Path(one["source"]).name, one["result"]) for one in lines] == [
            ("a.bin", "FAILED"), ("b.bin", "FAILED")
        ]  # fmt: skip
        assert not list(out.glob(".infer-result-*")) and not list((tmp_path / "tmp").glob("thresher-*"))
        listed = thresher("list", env=stack.environment)
        assert listed.returncode == 1 and len(listed.stderr.splitlines()) == 1 and "thresher up" in listed.stderr

        with up(**end) as stack:
            assert stack.password == password
            until(stack, ".infer-result-*/plan.json", 1, "Stopped", "Running", "Deploying")
            stack.process.kill()
            stack.process.wait()
            processes.poll(lambda: not up.left(), up.left)

        gate.touch()
        with up(**end) as stack:
            assert statuses()[:2] == ["Stopped", "Failed"]
            until(stack, "infer-result-*.manifest", 2, "Stopped", "Failed", "Completed")
            logs = thresher("logs", name, env=stack.environment)
            assert logs.returncode == 0 and logs.stdout
            assert name in thresher("list", env=stack.environment).stdout
            assert stack.interrupt() == 0
            assert "being stopped" not in stack.output.read_text().rpartition("Ctrl-C stops everything.")[2]
        processes.poll(lambda: not up.left(), up.left)
