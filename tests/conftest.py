"""Shared by all tests: a clean environment, one Prefect server per xdist worker, runs of the flow, and a final check
for leftovers.

All processes that the tests start inherit TMPDIR, a folder of this session: their folders are found in it, and they
themselves by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from fakes import prefect_servers, processes
from fakes.model_server import FakeModelServer

ROOT = Path(__file__).parents[1]
FAKE_MODEL_SERVER = ROOT / "tests" / "fakes" / "model_server.py"
_LEFT_BEHIND = ("warden.py", "model_server.py", "serving/server.py", "dask_worker")
_OUTSIDE = ("AWS_", "OBS_", "THRESHER_", "PREFECT_")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Started in the background of a script: child processes would also ignore SIGINT, and tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Prefect reads its settings when it is first imported, which may be while tests are collected.
_HOME = tempfile.mkdtemp(prefix="tests-prefect-")
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ[prefect_servers.SHARED] = tempfile.mkdtemp(prefix="tests-shared-")
for _name in [name for name in os.environ if name.startswith(_OUTSIDE)]:
    del os.environ[_name]
os.environ.update(
    PREFECT_HOME=_HOME,
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_LOGGING_TO_API_BATCH_INTERVAL="0.2",
    # Prefect waits 20 s for an embedded server, which is too short on a busy machine.
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
    # To check whether its block types are registered, a server would import the clients of Docker and Kubernetes.
    PREFECT_API_BLOCKS_REGISTER_ON_START="false",
    PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION="false",
    PYTHONPATH=processes.PYTHON_START,
    # No process may query the metadata address of a cloud.
    AWS_EC2_METADATA_DISABLED="true",
)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove this process's PREFECT_HOME and the folder shared by the processes of this session."""
    shutil.rmtree(_HOME, ignore_errors=True)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ[prefect_servers.SHARED], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow tests first with several xdist workers, so that no worker is left alone with one at the end.

    Files from last to first: the longest tests without a group are next to this file.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        files = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items))}
        items.sort(key=lambda item: -files[item.path] if item.get_closest_marker("slow") else 1)


def _processes_of(folder: Path) -> dict[int, str]:
    """Command lines, by id, of the processes (except this one) whose TMPDIR is the folder or one below it."""
    mark = f"TMPDIR={folder}/".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any((one + b"/").startswith(mark) for one in (entry / "environ").read_bytes().split(b"\0")):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TMPDIR of this worker's tests."""
    return tmp_path_factory.mktemp("tmp")


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind(session_folder: Path) -> Iterator[None]:
    """After all tests, no model server or warden of this session runs, and no thresher-* folder is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(session_folder))
        patch.setattr(tempfile, "tempdir", None)
        yield
    left: dict[int, str] = {}
    folders: list[str] = []

    def clean() -> bool:
        left.clear()
        left.update((i, c) for i, c in _processes_of(session_folder).items() if any(w in c for w in _LEFT_BEHIND))
        folders[:] = sorted(path.name for path in session_folder.glob("thresher-*"))
        return not left and not folders

    with contextlib.suppress(AssertionError):
        processes.poll(clean)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    assert not left, f"the tests left processes behind: {left}"
    assert not folders, f"the tests left folders behind: {folders}"


@pytest.fixture(scope="session")
def environments_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Environments of model packages, built once for all workers of this test run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "thresher-cache"


@pytest.fixture(autouse=True)
def _clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, environments_cache: Path
) -> None:
    """Without the user's keys, model store and environments."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "OBS_", "THRESHER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("THRESHER_MODEL_STORE", str(tmp_path_factory.getbasetemp() / "no-model-store"))
    monkeypatch.setenv("THRESHER_CACHE", str(environments_cache))


@pytest.fixture
def poll() -> Callable[..., Any]:
    """Polls a condition until it holds, at most until the deadline; its value."""
    return processes.poll


@pytest.fixture
def processes_of() -> Callable[[Path], dict[int, str]]:
    """Command lines, by id, of the processes whose TMPDIR is the given folder."""
    return _processes_of


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, _nothing_left_behind: None) -> Iterator[str]:
    """The API address of this worker's Prefect server, which this process's Prefect uses from then on."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    folder = tmp_path_factory.mktemp("prefect-server")
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_DATABASE_CONNECTION_URL": prefect_servers.migrated(folder / "prefect.db"),
        "PREFECT_UI_API_URL": url,
        "PREFECT_UI_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    }
    command = [
        *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
        *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--timeout-keep-alive", "30"),
    ]
    log = folder / "server.log"
    server = processes.start(command, log, environment)

    def answers() -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{url}/health", timeout=2).ok
        return False

    try:
        processes.wait_until(answers, server, log, 240)
        with temporary_settings(updates={PREFECT_API_URL: url}):
            yield url
            # Prefect's queued data must be sent before the server ends, or it would wait for that server.
            prefect_servers.all_sent()
    finally:
        processes.stop(server, 10)


@dataclass
class Ran:
    """The outcome of one run of the flow."""

    task_id: str
    state: str
    error: Exception | None
    result: Any
    output: str
    api: str

    @property
    def manifest(self) -> str:
        """The text of the output manifest's first part."""
        return Path(self.output, f"infer-result-{self.task_id}.manifest").read_text(encoding="utf-8")

    @property
    def lines(self) -> list[dict[str, str]]:
        """The lines of the output manifest's first part, after a check of their format."""
        found = []
        for line in self.manifest.split("\n")[:-1]:
            item = json.loads(line)
            texts = {key: json.dumps(value, ensure_ascii=False) for key, value in item.items()}
            told = f'"inference-loc": {texts["inference-loc"]}' if "inference-loc" in item else ""
            if item["result"] == "FAILED":
                told = ",".join(filter(None, (f'"error_message": {texts["error_message"]}', told)))
            assert line == f'{{"source": {texts["source"]},"result":{texts["result"]},{told}}}'
            found.append(item)
        return found

    @property
    def messages(self) -> dict[str, str]:
        """Each item's error message or SUCCESSFUL in the manifest, by the last part of its source."""
        return {one["source"].rpartition("/")[2]: one.get("error_message", one["result"]) for one in self.lines}

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary file."""
        found: dict[str, Any] = json.loads(Path(self.output, f"infer-result-{self.task_id}.summary.json").read_bytes())
        return found

    @property
    def files(self) -> dict[str, bytes]:
        """The result files, by their path below the result folder."""
        folder = Path(self.output, f"infer-result-{self.task_id}")
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    @property
    def top(self) -> list[str]:
        """Names in the output folder, with {id} in place of the run's id."""
        return sorted(name.replace(self.task_id, "{id}") for name in os.listdir(self.output))

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The response of the Prefect API."""
        answer = requests.post(self.api + path, json=body, timeout=60) if body is not None else requests.get(
            self.api + path, timeout=60
        )  # fmt: skip
        answer.raise_for_status()
        return answer.json()

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """The task runs of the flow run, by start."""
        body = {"flow_runs": {"id": {"any_": [self.task_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[dict[str, Any]] = self.ask("/task_runs/filter", body)
        return found

    @property
    def logs(self) -> list[str]:
        """All messages of the run's Logs tab."""
        from prefect.logging.handlers import APILogHandler

        APILogHandler().flush()
        messages: list[str] = []
        while True:
            body = {"logs": {"flow_run_id": {"any_": [self.task_id]}}, "offset": len(messages), "sort": "TIMESTAMP_ASC"}
            page = self.ask("/logs/filter", body)
            messages += [one["message"] for one in page]
            if len(page) < 200:
                return messages


RunService = Callable[..., Ran]


@pytest.fixture
def run_service(prefect_server: str, tmp_path: Path) -> RunService:
    """Runs the flow in this process, against the worker's Prefect server; ``again`` is the id of a failed flow run."""
    from prefect import State
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow_async
    from prefect.states import AwaitingRetry

    from flows.batch_service import batch_service
    from tasks.domain.service import BatchService

    async def retried(task_id: str, service: BatchService) -> State[Any]:
        async with get_client() as client:
            await client.set_flow_run_state(task_id, AwaitingRetry(), force=True)
            flow_run = await client.read_flow_run(task_id)
        return await run_flow_async(batch_service, flow_run, {"service": service}, return_type="state")

    def run(*, again: str | None = None, **fields: Any) -> Ran:
        service = BatchService(**{"output_path": str(tmp_path / "out"), **fields})
        work = retried(again, service) if again else batch_service(service, return_state=True)
        state: State[Any] = asyncio.run(work) if asyncio.iscoroutine(work) else work
        result = asyncio.run(state.aresult(raise_on_failure=False))
        error = result if isinstance(result, Exception) else None
        task_id = str(state.state_details.flow_run_id)
        held = getattr(error, "result", None) if error else result
        return Ran(task_id, state.name or "", error, held, service.output_path, prefect_server)

    return run


FILE_REQUEST = {"type": "object", "properties": {"images": {"type": "file"}}}
ROW_REQUEST = {
    "type": "object",
    "properties": {
        "data": {
            "type": "object",
            "properties": {
                "req_data": {
                    "type": "array",
                    "items": [
                        {
                            "type": "object",
                            "properties": {f"input_{number}": {"type": "number"} for number in (1, 2)},
                        }
                    ],
                }
            },
        }
    },
}
TEXT_REQUEST = {"type": "object", "properties": {"n": {"type": "number"}, "text": {"type": "string"}}}


@pytest.fixture
def config() -> Callable[..., dict[str, Any]]:
    """A config.json for the fake model: pictures at /, two numbers a row at /iris, a number and a text at /echo."""

    def make(**fields: Any) -> dict[str, Any]:
        apis = [
            {"url": url, "method": "post", "request": {"Content-type": kind, "data": data}}
            for url, kind, data in (
                ("/", "multipart/form-data", FILE_REQUEST),
                ("/iris", "application/json", ROW_REQUEST),
                ("/echo", "application/json", TEXT_REQUEST),
            )
        ]
        return {"model_type": "Image", "apis": apis, "health": {"period_seconds": 1}, **fields}

    return make


@pytest.fixture(scope="session")
def _one_model(_nothing_left_behind: None) -> Iterator[FakeModelServer]:
    with FakeModelServer("--count-items") as model:
        yield model


@pytest.fixture
def running(_one_model: FakeModelServer, config: Callable[..., dict[str, Any]]) -> dict[str, str]:
    """Fields of a service whose model is this worker's fake model server, which is already running."""
    return {"model": _one_model.url, "model_config": json.dumps(config())}


@pytest.fixture
def model(_one_model: FakeModelServer) -> FakeModelServer:
    """This worker's fake model server; its counts are those of all tests so far."""
    return _one_model


@pytest.fixture
def write_files() -> Callable[[Path, Mapping[str, bytes | str]], Path]:
    """Writes files below a folder, by their paths; returns the folder."""

    def write(folder: Path, files: Mapping[str, bytes | str]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return write


@pytest.fixture
def package(tmp_path: Path, config: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """Writes a model package served by run.sh: the fake model server with options, or another script."""

    def write(*options: str, script: str = "", folder: str = "package", **fields: Any) -> Path:
        home = tmp_path / folder
        home.mkdir()
        (home / "config.json").write_text(json.dumps(config(**fields)))
        command = " ".join([sys.executable, str(FAKE_MODEL_SERVER), *options])
        (home / "run.sh").write_text(script or f"exec {command}\n")
        return home

    return write


@pytest.fixture
def thresher(tmp_path: Path, session_folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the real command in a process of its own, on an ephemeral Prefect server; ``env`` adds variables."""
    home = session_folder.with_name("prefect-home")  # one for all tests
    prefect_servers.migrated(home / "prefect.db")

    def run(
        *arguments: object,
        env: Mapping[str, str] | None = None,
        preexec: Callable[[], None] | None = None,
        cwd: Path = tmp_path,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_of(arguments), cwd=cwd, env=environment_of(home, env), text=True, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=180, preexec_fn=preexec or processes.die_with_parent, check=False,
        )  # fmt: skip

    run.command = command_of  # type: ignore[attr-defined]
    run.environment = lambda env=None: environment_of(home, env)  # type: ignore[attr-defined]
    return run


def command_of(arguments: Sequence[object]) -> list[str]:
    """The command line of the installed command."""
    return [str(Path(sys.executable).with_name("thresher")), *map(str, arguments)]


def environment_of(home: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command: this process's, with another PREFECT_HOME."""
    return {**os.environ, "PREFECT_HOME": str(home), **(env or {})}
