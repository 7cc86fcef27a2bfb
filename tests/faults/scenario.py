"""A batch service of a fault test, its runs in separate processes, and the check that nothing was lost."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
from fakes import processes
from fakes.model_behaviour import item_key
from fakes.s3_server import S3Server
from faults.corpus import MAX_ITEM_BYTES, Corpus

FLOW_PROCESS = Path(__file__).parents[1] / "fakes" / "flow_process.py"
RUN_SECONDS = 240.0
"""Far more than a run takes, however busy the machine."""
HELD = 2
"""Items that wait for the gate: as many as requests in flight, so that they block the run."""
FIRST_HELD = 270
MIDDLE = 60
"""The number of results that certainly exist before the run is blocked."""
SETTINGS = {
    "THRESHER_MAX_ITEM_BYTES": str(MAX_ITEM_BYTES),
    "THRESHER_SHARD_ITEMS": "100",
    "THRESHER_REPORT_SECONDS": "0.2",
    "THRESHER_DOWNLOAD_TIMEOUT_SECONDS": "60",  # a request that hangs is retried before the test gives up
}
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")

Tmp = Callable[[Path], dict[int, str]]


class Scenario:
    """One service over one corpus, in a folder of its own; all processes of its runs are found by their TMPDIR."""

    def __init__(
        self, folder: Path, api: str, processes_of: Tmp, package: Callable[..., Path], instances: int = 1
    ) -> None:
        self.folder = folder
        self.api = api
        self.instances = instances
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        self.gate = folder / "gate"
        self.state = folder / "model-state.json"
        self.output = folder / "out"
        self.input = str(folder / "in")
        self.corpus = Corpus(special=self.held)
        self.environment = {**os.environ, **SETTINGS, "TMPDIR": str(self.tmp), "PREFECT_API_URL": api}
        self.bystander = "prefect worker start"
        """Processes in TMPDIR with this in their command line belong to the test, not to the runs."""
        self._processes_of = processes_of
        self._package = package
        self.fields: dict[str, Any] = {}

    @property
    def held(self) -> dict[int, str]:
        """Markers of the items that wait until the gate exists."""
        return {FIRST_HELD + number: f"FAIL:until:{self.gate}" for number in range(HELD * self.instances)}

    def prepare(self, corpus: Corpus | None = None, *options: str, write: bool = True, **fields: Any) -> Scenario:
        """Write the items and the model package; `options` are those of the model server."""
        self.corpus = corpus or self.corpus
        if write:
            self.corpus.write(Path(self.input))
        model = self._package("--state", str(self.state), *options, apis=[FILE_API])
        self.fields = {
            "name": f"fault-{self.folder.name}"[-60:].strip("-"), "model": str(model), "input_path": self.input,
            "output_path": str(self.output), "request_path": "/key", "max_concurrency": HELD,
            "instances": self.instances, **fields,
        }  # fmt: skip
        return self

    # -- the state so far -------------------------------------------------------------------------------------------

    @property
    def processes(self) -> dict[int, str]:
        """Command lines of all processes of the runs, by id."""
        return {pid: line for pid, line in self._processes_of(self.tmp).items() if self.bystander not in line}

    def pids(self, *words: str) -> list[int]:
        """Processes of the runs whose command line contains each of these words (`!word`: does not contain it)."""
        return [
            pid
            for pid, line in self.processes.items()
            if all(word[1:] not in line if word.startswith("!") else word in line for word in words)
        ]

    @property
    def model_servers(self) -> list[int]:
        """The running model servers."""
        return self.pids("model_server.py", "!warden.py")

    def results(self) -> int:
        """The number of result files."""
        return sum(len(files) for _, _, files in os.walk(self.output) if files and "_result.txt" in files[0])

    def is_in_the_middle(self) -> bool:
        """Whether a good part is done; the held items keep the run from ending."""
        return self.results() >= MIDDLE

    def seen(self) -> int:
        """The number of marked items for which the model server has received a request."""
        with contextlib.suppress(FileNotFoundError):
            return len(json.loads(self.state.read_text())["seen"])
        return 0

    def asked(self) -> int:
        """The number of requests for the items that wait for the gate, in all tries together."""
        held = [item_key(self.corpus.entries[number].content or b"") for number in self.held]
        with contextlib.suppress(FileNotFoundError):
            seen = json.loads(self.state.read_text())["seen"]
            return sum(int(seen.get(key, 0)) for key in held)
        return 0

    def starts(self) -> int:
        """The number of starts of model servers."""
        with contextlib.suppress(FileNotFoundError):
            return int(json.loads(self.state.read_text())["starts"])
        return 0

    def flow_run(self) -> FlowRun:
        """A flow run of the service, not yet started."""
        return FlowRun(self)

    # -- the check ----------------------------------------------------------------------------------------------------

    def files(self, task_id: str) -> tuple[str, str, dict[str, bytes], set[str]]:
        """Output manifest, summary, result files and the names at the top of the output."""
        folder = self.output / f"infer-result-{task_id}"
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        manifest, summary = (
            (self.output / f"infer-result-{task_id}.{end}").read_text() for end in ("manifest", "summary.json")
        )
        return manifest, summary, files, set(os.listdir(self.output))

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The response of the Prefect API; a `body` is sent by POST."""

        def answered() -> list[requests.Response]:
            with contextlib.suppress(requests.ConnectionError):
                method = "GET" if body is None else "POST"
                answer = requests.request(method, self.api + path, json=body, timeout=60)
                return [] if answer.status_code == 503 else [answer]
            return []

        (answer,) = processes.poll(answered, f"an answer to {path}")
        answer.raise_for_status()
        return answer.json()

    def assert_nothing_left(self, *, folders: bool = True) -> None:
        """Check that no process of the runs is left, and with `folders` no folder of theirs."""
        processes.poll(lambda: not self.processes, lambda: self.processes)
        if not folders:
            return
        processes.poll(lambda: not list(self.tmp.glob("thresher-*")), lambda: list(self.tmp.glob("thresher-*")))


class S3Scenario(Scenario):
    """A service whose input and output are in a bucket of a real S3 server."""

    server: S3Server

    def use(self, server: S3Server, endpoint: str = "") -> S3Scenario:
        """Keep items and results on this server; `endpoint` is that of a proxy for clients, if any."""
        self.server = server
        self.output = server.folder / "data" / "out"
        self.input = str(server.folder / "data" / "in")
        variables = server.environment()
        self.environment |= variables | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})
        return self

    def prepare(self, corpus: Corpus | None = None, *options: str, write: bool = True, **fields: Any) -> Scenario:
        """As in the base class, but without links: object stores have none."""
        corpus = corpus or Corpus(special=self.held, links=False)
        super().prepare(corpus, *options, write=write, **fields)
        self.fields |= {"input_path": "s3://data/in", "output_path": "s3://data/out"}
        return self

    def files(self, task_id: str) -> tuple[str, str, dict[str, bytes], set[str]]:
        """As the server lists them: object stores have no folders."""
        keys = self.server.keys("data", "out/")
        folder = f"out/infer-result-{task_id}/"
        files = {
            key.removeprefix(folder): Path(self.server.folder, "data", key).read_bytes()
            for key in keys
            if key.startswith(folder)
        }
        manifest, summary = (
            self.server.get("data", f"out/infer-result-{task_id}.{end}").decode()
            for end in ("manifest", "summary.json")
        )
        return manifest, summary, files, {key.split("/")[1] for key in keys}


class FlowRun:
    """One flow run; each of its tries is a process, one after the other."""

    def __init__(self, scenario: Scenario, task_id: str = "") -> None:
        self.scenario = scenario
        self.process: subprocess.Popen[bytes] | None = None
        self._tries = 0
        if task_id:
            self.task_id = task_id
            return
        flow = scenario.ask("/flows/", {"name": "batch_service"})["id"]
        body = {"flow_id": flow, "parameters": {"service": scenario.fields}, "state": {"type": "PENDING"}}
        self.task_id = str(scenario.ask("/flow_runs/", body)["id"])

    @property
    def log(self) -> Path:
        """The output of the processes."""
        return self.scenario.folder / f"{self.task_id}.log"

    def start(self, **environment: str) -> FlowRun:
        """Start the process of the flow run's next try."""
        self._tries += 1
        command = [sys.executable, str(FLOW_PROCESS), self.task_id]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.scenario.folder,
                env={**self.scenario.environment, **environment}, start_new_session=True,
                preexec_fn=processes.die_with_parent,
            )  # fmt: skip
        return self

    def resume(self, **environment: str) -> FlowRun:
        """Start it again, as a retry of the same flow run."""
        assert self.process is None or self.process.poll() is not None
        self.await_retry()
        return self.start(**environment)

    def await_retry(self) -> None:
        """Make the server expect another try."""
        body = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
        self.scenario.ask(f"/flow_runs/{self.task_id}/set_state", body)

    def until(self, condition: Callable[[], Any], what: object = "the moment", *, dead: bool = False) -> Any:
        """Wait for a condition; unless the run may be `dead`, its process must not end before that."""

        def reached() -> Any:
            assert dead or self.process is None or self.process.poll() is None, self.told()
            return condition()

        return processes.poll(reached, lambda: f"{what}; {self.told()}", RUN_SECONDS)

    def signal(self, number: int, *, group: bool = False) -> int:
        """Send a signal to the process (or its group) and wait for its end; the exit code."""
        assert self.process is not None
        (os.killpg if group else os.kill)(self.process.pid, number)
        return self.process.wait(RUN_SECONDS)

    def wait(self) -> FlowRun:
        """Wait until the process has ended by itself."""
        assert self.process is not None
        try:
            self.process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run has not ended; {self.told()}") from None
        return self

    def state(self) -> dict[str, Any]:
        """The flow run's state on the server."""
        found: dict[str, Any] = self.scenario.ask(f"/flow_runs/{self.task_id}")["state"]
        return found

    def told(self) -> str:
        """The known facts of the run, for the message of a failing test."""
        printed = self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""
        return f"run {self.task_id}, {self.scenario.results()} results: {printed}"

    def close(self) -> None:
        """End the process if it still runs."""
        if self.process is not None:
            processes.stop(self.process, 20)


def assert_nothing_lost(
    run: FlowRun, *, state: str = "COMPLETED", may_fail: str = "", others: tuple[str, ...] = (), folders: bool = True
) -> dict[str, Any]:
    """Check everything that must hold for a run that has ended, whatever has happened to it; its summary.

    Each item has exactly one line, in order, and each SUCCESSFUL one the same result file as in a run without faults.
    No process and no scratch folder is left, and the flow run's state is `state`. `may_fail`: see Corpus.check;
    `others` are the ids of runs with the same output folder; without `folders`, temporary folders may be left.
    """
    scenario = run.scenario
    final = processes.poll(
        lambda: found if (found := run.state())["type"] in FINAL else None,
        lambda: f"the end of {run.told()}",
        RUN_SECONDS,
    )
    assert final["type"] == state, f"{final}\n{run.told()}"
    manifest, summary, files, top = scenario.files(run.task_id)
    own = f"infer-result-{run.task_id}"
    successful, failed = scenario.corpus.check(manifest, files, f"{scenario.fields['output_path']}/{own}", may_fail)
    allowed = {own, f"{own}.manifest", f"{own}.summary.json", f"{own}.logs"}
    assert {name for name in top if not any(other in name for other in others)} <= allowed
    counts: dict[str, Any] = json.loads(summary)
    counted = [counts["items"][name] for name in ("planned", "successful", "failed")]
    assert counted == [successful + failed, successful, failed]
    if not others:
        scenario.assert_nothing_left(folders=folders)
    return counts


FILE_API = {
    "url": "/key",
    "method": "post",
    "request": {
        "Content-type": "multipart/form-data",
        "data": {"type": "object", "properties": {"images": {"type": "file"}}},
    },
}
