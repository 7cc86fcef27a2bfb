"""Distributed mode: each instance is the worker of a Dask cluster, and whatever dies, every item has its line once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import processes
from fakes.processes import alive, die_with_parent, meanwhile
from prefect_dask.task_runners import PrefectDaskFuture

from tasks.domain.run import RunFailed
from tasks.engine import progress

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
TELLS_WHERE = """
import itertools, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
told = Path(sys.argv[1])
def wait(ready):
    while not ready():
        time.sleep(0.02)
def mine(number):
    try:
        (told / f"number-{{number}}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
number = next(filter(mine, itertools.count()))
(told / f"start-{{os.getpid()}}").touch()
if {refuse}:
    sys.exit(3)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = body.split(b'filename="')[1].split(b'"')[0].decode()
        with (told / f"asked-{{os.getpid()}}").open("a") as file:
            file.write(name + "\\n")
        {each}
        data = b"answer to " + name.encode()
        self.send_response(200); self.send_header("Content-Length", str(len(data))); self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Model:
    """A package whose instances note in a folder which items they were asked for."""

    def __init__(self, home: Path, told: Path) -> None:
        self.home = str(home)
        self.told = told

    @property
    def starts(self) -> list[int]:
        """Process ids of the model servers that were started."""
        return [int(path.name.partition("-")[2]) for path in self.told.glob("start-*")]

    @property
    def asked(self) -> dict[int, list[str]]:
        """The items that each process was asked for."""
        return {int(path.name.partition("-")[2]): path.read_text().split() for path in self.told.glob("asked-*")}


@pytest.fixture
def model(package: Any, tmp_path: Path) -> Callable[..., Model]:
    """Makes the package; ``each`` is done before each answer, with ``refuse`` a process does not start."""

    def make(each: str = "pass", refuse: str = "False") -> Model:
        told = tmp_path / "told"
        told.mkdir()
        program = tmp_path / "tells_where.py"
        program.write_text(TELLS_WHERE.format(each=each, refuse=refuse))
        return Model(package(script=f"exec {sys.executable} {program} {told}\n"), told)

    return make


@pytest.fixture
def items(tmp_path: Path, write_files: Any) -> Callable[[int], str]:
    """Writes so many items; the folder."""
    return lambda count: str(write_files(tmp_path / "in", {f"{number:04d}.bin": b"x" for number in range(count)}))


def dask_workers(processes_of: Any, tmp: str) -> list[int]:
    """Ids of the Dask workers of this session."""
    return [pid for pid, line in processes_of(Path(tmp)).items() if "dask_worker" in line and "warden.py" not in line]


def check(ran: Any, count: int) -> None:
    """Every item has its line, in order, and its result."""
    names = [f"{number:04d}.bin" for number in range(count)]
    assert [line["source"].rpartition("/")[2] for line in ran.lines] == names
    assert set(ran.messages.values()) == {"SUCCESSFUL"}
    assert ran.files == {f"{name}_result.txt": f"answer to {name}".encode() for name in names}
    assert ran.top == [
        "infer-result-{id}", "infer-result-{id}.logs", "infer-result-{id}.manifest", "infer-result-{id}.summary.json"
    ] or ran.top == ["infer-result-{id}", "infer-result-{id}.manifest", "infer-result-{id}.summary.json"]  # fmt: skip


BOTH = "wait(lambda: len(list(told.glob('asked-*'))) > 1)"
"""Nobody is answered before two instances were asked something."""


def test_instances__share_the_items_of_one_shard_by_their_speed_and_each_is_processed_once(
    run_service: Any, model: Any, items: Any, poll: Any
) -> None:
    # The first process waits for the second one, and is asked for one item at a time four times as long.
    served = model(each=f"{BOTH}; time.sleep(0.08 if number == 0 else 0.02)")
    ran = run_service(
        model=served.home, input_path=items(300), request_path="/", instances=2, max_concurrency=1
    )  # fmt: skip
    assert ran.state == "Completed", ran.error
    check(ran, 300)
    assert len(served.starts) == 2
    asked = [name for names in served.asked.values() for name in names]
    assert max(Counter(asked).values()) == 1 and len(asked) == 300
    counts = sorted(map(len, served.asked.values()))
    assert counts[0] > 30 and counts[0] * 2 < counts[1]
    assert ran.summary["items"] == {"planned": 300, "successful": 300, "failed": 0, "not_processed": 0}
    assert ran.summary["requests"] == 300
    nested = ran.ask("/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [ran.task_id]}}})
    assert [(one["name"], one["state_type"]) for one in nested] == [("inference", "COMPLETED")]
    body = {"flow_runs": {"id": {"any_": [nested[0]["id"]]}}}

    def ended() -> Any:
        shards = ran.ask("/task_runs/filter", body)
        return shards if len(shards) > 1 and {one["state_type"] for one in shards} == {"COMPLETED"} else []

    shards = poll(ended, "the nested flow's tasks")
    assert {one["name"] for one in shards} == {"infer-0"}


@pytest.mark.soak  # tests/faults kills either in a longer run
@pytest.mark.parametrize("victim", ["dask worker", "model server"])
def test_instance__that_is_killed_loses_no_item(
    run_service: Any, model: Any, items: Any, poll: Any, processes_of: Any, tmp_path: Path, victim: str
) -> None:
    gate = tmp_path / "gate"
    held = f"wait(lambda: name < '0040' or os.path.exists({str(gate)!r}))"
    served = model(each=f"{BOTH}; {held}")
    killed: list[int] = []

    def kill() -> None:
        try:
            poll(lambda: sum(map(len, served.asked.values())) > 45, "items under way")
            killed.append(
                dask_workers(processes_of, os.environ["TMPDIR"])[0] if victim == "dask worker" else served.starts[0]
            )
            os.kill(killed[0], signal.SIGKILL)
            poll(lambda: len(served.starts) >= 3, "another start")
        finally:
            gate.touch()

    with meanwhile(kill):
        ran = run_service(model=served.home, input_path=items(200), request_path="/", instances=2)
    assert ran.state == "Completed", ran.error
    check(ran, 200)
    assert killed


def test_result__that_is_lost_with_its_process_before_it_was_fetched_is_made_again(
    run_service: Any, model: Any, items: Any, processes_of: Any, poll: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = model()
    killed: list[int] = []
    fetch = PrefectDaskFuture.result

    def fetch_late(future: Any, *arguments: Any, **named: Any) -> Any:
        if not killed:
            killed.extend(dask_workers(processes_of, os.environ["TMPDIR"]))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            poll(lambda: not any(map(alive, killed)), "the workers to be gone")
        return fetch(future, *arguments, **named)

    monkeypatch.setattr(PrefectDaskFuture, "result", fetch_late)
    ran = run_service(model=served.home, input_path=items(20), request_path="/", instances=2)
    assert ran.state == "Completed", ran.error
    check(ran, 20)
    assert killed


def test_instances__that_do_not_start_or_die_and_are_given_up_leave_all_items_to_the_others(
    run_service: Any, model: Any, items: Any
) -> None:
    # The first process goes on when one has refused, and another has died of its first item and has not started again.
    served = model(
        refuse="number not in (0, 2)",
        each="os._exit(9) if number > 0 else wait(lambda: len(list(told.glob('start-*'))) > 5)",
    )
    ran = run_service(
        model=served.home, input_path=items(120), request_path="/", instances=3, max_concurrency=1
    )  # fmt: skip
    assert ran.state == "Completed", ran.error
    check(ran, 120)
    given_up = [line for line in ran.logs if "given up" in line and "status 3" in line]
    assert len(given_up) == 2 and len({line.split()[0] for line in given_up}) == 2


def test_instances__none_of_which_starts_fail_the_run_whose_manifest_has_every_item(
    run_service: Any, model: Any, items: Any, tmp_path: Path
) -> None:
    ran = run_service(model=model(refuse="True").home, input_path=items(10), request_path="/", instances=2)
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    assert "The model server ended with status 3" in str(ran.error)
    assert [name for name in ran.top if not name.endswith(".logs")] == [
        "infer-result-{id}.manifest", "infer-result-{id}.summary.json"
    ]  # fmt: skip
    assert len(ran.messages) == 10
    assert all(message.startswith("Not processed: The model server ended") for message in ran.messages.values())
    assert ran.summary["items"] == {"planned": 10, "successful": 0, "failed": 10, "not_processed": 10}
    assert not [line for line in ran.logs if "Traceback" in line]


@pytest.mark.soak  # thirty deaths in a row: tests/engine gives it up, and the one above leaves its items to others
def test_instance__that_dies_of_everything_leaves_its_items_to_the_others(
    run_service: Any, model: Any, items: Any
) -> None:
    # The second process dies of everything, until it is given up.
    each = "os._exit(9) if number > 0 else wait(lambda: len(list(told.glob('start-*'))) > 30)"
    served = model(each=each)
    ran = run_service(
        model=served.home, input_path=items(120), request_path="/", instances=2, max_concurrency=1
    )  # fmt: skip
    assert ran.state == "Completed", ran.error
    lines = Counter(ran.messages.values())
    died = "model server died 3 times on this item"
    assert set(lines) <= {"SUCCESSFUL", died}
    assert lines[died] <= 11 and sum(lines.values()) == 120


def test_error_threshold__stops_all_instances_and_every_item_has_its_line(
    run_service: Any, package: Any, tmp_path: Path, write_files: Any
) -> None:
    texts = {f"{number:04d}.jpg": f"{number} FAIL:404" for number in range(600)}
    source = write_files(tmp_path / "in", texts | {"0000.jpg": "good"})
    ran = run_service(
        model=str(package()), input_path=str(source), request_path="/", instances=2, error_threshold=5,
        max_concurrency=1,
    )  # fmt: skip
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    assert "stopped early because" in str(ran.error) and "error_threshold 5" in str(ran.error)
    assert [line["source"].rpartition("/")[2] for line in ran.lines] == [*texts]
    assert ran.messages["0599.jpg"].startswith("Not processed: the run was stopped early")


@pytest.mark.soak  # one more reason to stop: the threshold stops several instances, the deadline those of one process
def test_deadline__ends_all_instances_soon_and_every_item_has_its_line(
    run_service: Any, model: Any, items: Any, tmp_path: Path
) -> None:
    # Both are asked, and never answer again.
    served = model(each=f"{BOTH}; wait(lambda: name < '0010')")
    ran = run_service(
        model=served.home, input_path=items(200), request_path="/", instances=2, max_concurrency=2, deadline_minutes=0.5
    )  # fmt: skip
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    reason = "the run was stopped early because its deadline (0.5 minutes) had passed."
    assert f"T{reason[1:]}" in str(ran.error)
    assert [line["source"].rpartition("/")[2] for line in ran.lines] == [f"{number:04d}.bin" for number in range(200)]
    assert set(ran.messages.values()) <= {"SUCCESSFUL", f"Not processed: {reason}"}
    assert ran.messages["0199.bin"] == f"Not processed: {reason}"


CALLER = """
import sys
from flows.batch_service import batch_service
from tasks.domain.service import BatchService

for source, output in zip(sys.argv[2::2], sys.argv[3::2]):
    service = BatchService(model=sys.argv[1], input_path=source, output_path=output, request_path="/", instances=2)
    print(batch_service(service).manifest, flush=True)
"""


def test_calls__in_plain_python_run_on_an_embedded_server_and_killed_leave_nothing(
    thresher: Any, model: Any, items: Any, tmp_path: Path, poll: Any, processes_of: Any, write_files: Any
) -> None:
    served = model(each=f"{BOTH}; wait(lambda: not name.startswith('held'))")
    held = str(write_files(tmp_path / "held", {f"held-{number}.bin": b"x" for number in range(40)}))
    script = tmp_path / "caller.py"
    script.write_text(CALLER)
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    log = tmp_path / "caller.log"
    caller = subprocess.Popen(
        [sys.executable, str(script), served.home, items(40), str(tmp_path / "whole"), held, str(tmp_path / "killed")],
        cwd=tmp_path, env=thresher.environment({"TMPDIR": str(tmp), "PYTHONPATH": processes.PYTHONPATH}),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log.open("ab"), text=True,
        preexec_fn=die_with_parent,
    )  # fmt: skip
    with caller:
        try:
            assert caller.stdout is not None
            manifest = caller.stdout.readline().strip()
            assert manifest, log.read_text()[-3000:]
            lines = [json.loads(line) for line in Path(manifest).read_text().splitlines()]
            assert [line["result"] for line in lines] == ["SUCCESSFUL"] * 40
            whole = set(served.asked)

            def both_hold_items() -> bool:
                assert caller.poll() is None, log.read_text()[-3000:]
                return len(set(served.asked) - whole) == 2

            poll(both_hold_items, lambda: log.read_text()[-3000:])
            servers = [line for line in processes_of(tmp).values() if "prefect_app" in line or "create_app" in line]
            assert len(servers) == 1 and "--embedded" in servers[0], servers
        finally:
            caller.kill()
    poll(lambda: not processes_of(tmp), lambda: processes_of(tmp))
    poll(lambda: not list(tmp.glob("thresher-*")), lambda: list(tmp.glob("thresher-*")))


def test_run__all_of_whose_instances_refuse_everything_stops_early_and_is_resumed(
    run_service: Any, items: Any, package: Any, tmp_path: Path, poll: Callable[..., None]
) -> None:
    refusing = tmp_path / "refusing"
    fields = {
        "name": "refusing", "model": str(package("--refuse-while", str(refusing), "--service-time", "20")),
        "input_path": items(60), "request_path": "/", "instances": 2, "max_concurrency": 1,
    }  # fmt: skip
    seen: list[str] = []

    def refuse() -> None:
        poll(lambda: len([*tmp_path.rglob("*_result.txt")]) >= 5)
        refusing.write_text("503")

        def is_told() -> bool:
            seen.extend(one.outage for one in progress.runs().values() if one.service == "refusing" and one.outage)
            return bool(seen)

        poll(is_told)

    with meanwhile(refuse):
        ran = run_service(**fields, outage_minutes=0.05)
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    assert "has answered no request for 0.05 minutes (HTTP 503). What was done is kept" in ran.summary["failure"]
    done = ran.summary["items"]
    assert done["successful"] >= 5 and done["successful"] + done["not_processed"] == 60 == done["planned"]
    assert set(seen) == {"HTTP 503"}
    refusing.unlink()
    again = run_service(again=ran.task_id, **fields)
    assert again.state == "Completed", again.error
    assert again.summary["items"] == {"planned": 60, "successful": 60, "failed": 0, "not_processed": 0}
