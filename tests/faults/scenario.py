"""A batch service of a fault test, its runs in processes of their own, and the check that nothing was lost."""

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
"""Far beyond what a run takes, however busy the machine."""
HELD = 2
"""Items that wait for their gate: as many as requests are in flight, so that the run stands still with them."""
FIRST_HELD = 270
MIDDLE = 60
"""Results that are there for sure before the run stands still."""
SETTINGS = {
    "THRESHER_MAX_ITEM_BYTES": str(MAX_ITEM_BYTES),
    "THRESHER_SHARD_ITEMS": "100",
    "THRESHER_REPORT_SECONDS": "0.2",
    "THRESHER_DOWNLOAD_TIMEOUT_SECONDS": "60",  # a request that hangs is tried again before the test gives up
}
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")

Tmp = Callable[[Path], dict[int, str]]


class Scenario:
    """One service over one corpus, in a folder of its own; everything its processes start knows them by TMPDIR."""

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
        """Markers of the items that wait until the gate is there."""
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

    # -- what is there ----------------------------------------------------------------------------------------------

    @property
    def processes(self) -> dict[int, str]:
        """Command lines of all processes of the runs, by id."""
        return {pid: line for pid, line in self._processes_of(self.tmp).items() if self.bystander not in line}

    def pids(self, *words: str) -> list[int]:
        """Processes of the runs whose command line holds each of these words (`!word`: does not hold it)."""
        return [
            pid
            for pid, line in self.processes.items()
            if all(word[1:] not in line if word.startswith("!") else word in line for word in words)
        ]

    @property
    def model_servers(self) -> list[int]:
        """The model servers that run."""
        return self.pids("model_server.py", "!warden.py")

    def results(self) -> int:
        """How many result files are there."""
        return sum(len(files) for _, _, files in os.walk(self.output) if files and "_result.txt" in files[0])

    def is_in_the_middle(self) -> bool:
        """Whether a good part is done; the held items keep the run from its end."""
        return self.results() >= MIDDLE

    def seen(self) -> int:
        """Marked items that the model server was asked for."""
        with contextlib.suppress(FileNotFoundError):
            return len(json.loads(self.state.read_text())["seen"])
        return 0

    def asked(self) -> int:
        """How often the model server was asked for the items that wait for the gate, by all tries together."""
        held = [item_key(self.corpus.entries[number].content or b"") for number in self.held]
        with contextlib.suppress(FileNotFoundError):
            seen = json.loads(self.state.read_text())["seen"]
            return sum(int(seen.get(key, 0)) for key in held)
        return 0

    def starts(self) -> int:
        """How often a model server was started."""
        with contextlib.suppress(FileNotFoundError):
            return int(json.loads(self.state.read_text())["starts"])
        return 0

    def flow_run(self) -> FlowRun:
        """A flow run of the service, not started yet."""
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
        """An answer of the Prefect API; a `body` is posted."""

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
        """No process of the runs is there, and none of their `folders`."""
        processes.poll(lambda: not self.processes, lambda: self.processes)
        if not folders:
            return
        processes.poll(lambda: not list(self.tmp.glob("thresher-*")), lambda: list(self.tmp.glob("thresher-*")))


class S3Scenario(Scenario):
    """A service whose input and output are in a bucket of a real S3 server."""

    server: S3Server

    def use(self, server: S3Server, endpoint: str = "") -> S3Scenario:
        """Keep items and results there; `endpoint` if clients go through a proxy."""
        self.server = server
        self.output = server.folder / "data" / "out"
        self.input = str(server.folder / "data" / "in")
        variables = server.environment()
        self.environment |= variables | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})
        return self

    def prepare(self, corpus: Corpus | None = None, *options: str, write: bool = True, **fields: Any) -> Scenario:
        """As usual; a bucket holds no links."""
        corpus = corpus or Corpus(special=self.held, links=False)
        super().prepare(corpus, *options, write=write, **fields)
        self.fields |= {"input_path": "s3://data/in", "output_path": "s3://data/out"}
        return self

    def files(self, task_id: str) -> tuple[str, str, dict[str, bytes], set[str]]:
        """As the server lists them: folders are no things in a bucket."""
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
    """One flow run, tried in processes of their own, one after the other."""

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
        """What the processes have printed."""
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
        """Start it once more, as a retry of the same flow run."""
        assert self.process is None or self.process.poll() is not None
        self.await_retry()
        return self.start(**environment)

    def await_retry(self) -> None:
        """Let the server expect another try."""
        body = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
        self.scenario.ask(f"/flow_runs/{self.task_id}/set_state", body)

    def until(self, condition: Callable[[], Any], what: object = "the moment", *, dead: bool = False) -> Any:
        """Wait for a moment of the run; unless it may be `dead` then, its process must not end before."""

        def reached() -> Any:
            assert dead or self.process is None or self.process.poll() is None, self.told()
            return condition()

        return processes.poll(reached, lambda: f"{what}; {self.told()}", RUN_SECONDS)

    def signal(self, number: int, *, group: bool = False) -> int:
        """Send a signal to the process (or its group); the code with which it ends."""
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
        """What is known of it, for the message of a test that fails."""
        printed = self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""
        return f"run {self.task_id}, {self.scenario.results()} results: {printed}"

    def close(self) -> None:
        """End what still runs."""
        if self.process is not None:
            processes.stop(self.process, 20)


def assert_nothing_lost(
    run: FlowRun, *, state: str = "COMPLETED", may_fail: str = "", others: tuple[str, ...] = (), folders: bool = True
) -> dict[str, Any]:
    """Check all of what has to hold of a run that has ended, whatever has happened to it; its summary.

    Each item has exactly one line, in order; each SUCCESSFUL one the result file that a run without faults gives; no
    process and no scratch is left; the flow run's state is `state`. `may_fail`: see Corpus.check; `others` are the ids
    of runs with the same output folder; without `folders` temporary ones may be left.
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
