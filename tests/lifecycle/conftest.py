"""Prefect servers with pools and a worker each, once per kind: SQLite in one process, and PostgreSQL with Redis."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fakes import prefect_servers, processes
from fakes.otlp_receiver import OtlpReceiver
from fakes.prefect_servers import PrefectServer, WorkerProcess

POOLS = Path(__file__).parents[2] / "infra" / "pools"
OWN_POOL = """
name: {name}
kind: process
access: dedicated
contact: the tests
max_runs: 1
flavors:
  - {{name: cpu-1, cpu: 1, memory_gb: 2}}
"""
OWN_POOLS = ("one-at-a-time", "unattended")
"""No worker takes runs of the second: tests run them in this process, or set their states."""
RUN_SECONDS = 150.0
"""A run on a busy machine takes less: its process alone needs seconds to start."""
SERVERS = {"sqlite": prefect_servers.sqlite_server, "postgres": prefect_servers.postgres_redis_server}


@dataclass(frozen=True)
class Stack:
    """A Prefect server with pools and workers, and what tests ask of it."""

    server: PrefectServer
    workers: dict[str, WorkerProcess]
    """Those that run, by their pools."""
    block: ExitStack
    """Ends the workers."""
    environment: Mapping[str, str]
    """Variables of whoever speaks to it: the server's, and the places where Thresher keeps things."""
    pools: Path
    collector: OtlpReceiver
    """What runs send their runtime log output to."""

    def attend(self, pool: str) -> WorkerProcess:
        """The worker of a pool, started when it is needed first."""
        if pool not in self.workers:
            one = prefect_servers.worker(self.server, pool, self.environment)
            self.workers[pool] = self.block.enter_context(one)
        return self.workers[pool]

    @contextmanager
    def paused(self, pool: str = "public-cpu") -> Iterator[None]:
        """While it lasts, the pool's worker is given no runs."""
        self.server.ask(f"/work_pools/{pool}", {"is_paused": True}, "PATCH")
        try:
            yield
        finally:
            self.server.ask(f"/work_pools/{pool}", {"is_paused": False}, "PATCH")

    def deploy_only(self, fields: Mapping[str, Any]) -> Any:
        """A service whose first run is gone before a worker could begin it."""
        from deployments.services.lifecycle import deploy

        with self.paused():
            made = deploy(fields)
            self.server.ask(f"/flow_runs/{made.last_run.id}", method="DELETE")
        return made

    def execute(self, task_id: str, flow: Any = None) -> dict[str, Any]:
        """Run a flow run in this process, as the process does that a worker starts; the flow run, which has ended.

        It is one of a service, unless another flow is given.
        """
        from prefect.client.orchestration import get_client
        from prefect.flow_engine import run_flow

        from flows.batch_service import batch_service

        async def work() -> None:
            async with get_client() as client:
                flow_run = await client.read_flow_run(UUID(task_id))
            await run_flow(flow or batch_service, flow_run, return_type="state")

        prefect_servers.all_sent()  # nothing of another server's, which this process spoke to before
        try:
            asyncio.run(work())
        finally:
            prefect_servers.all_sent()
        return self.ended(task_id)

    def status(self, name: str) -> str:
        """A service's status."""
        from deployments.services.overview import show

        return str(show(name).status)

    def until(self, name: str, *wanted: str, stay: tuple[str, ...] = ()) -> Any:
        """The service, once its status is one of `wanted`; with `stay` each status before must be one of these."""
        from deployments.services.overview import show

        seen: list[str] = []

        def reached() -> Any:
            service = show(name)
            if not seen or seen[-1] != service.status:
                seen.append(service.status)
            if service.status in wanted:
                return service
            assert not stay or service.status in stay, self.told(name)
            return None

        return processes.poll(reached, lambda: f"{name} to be {wanted}, it was {seen}. {self.told(name)}", RUN_SECONDS)

    def completed(self, name: str) -> Any:
        """The service, once its last run has ended; it must have Completed."""
        service = self.until(name, "Completed", "Failed", "Stopped")
        assert service.status == "Completed", self.told(name)
        return service

    def ended(self, task_id: str) -> dict[str, Any]:
        """A flow run, once it has ended."""

        def over() -> Any:
            found = self.server.ask(f"/flow_runs/{task_id}")
            if (found["state"] or {}).get("type") in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"):
                return found
            return None

        found: dict[str, Any] = processes.poll(over, lambda: f"the end of {task_id}. {self.log(task_id)}", RUN_SECONDS)
        return found

    def log(self, task_id: str) -> str:
        """What the Logs tab of a run shows."""
        messages: list[str] = []
        while True:
            of_run = {"flow_run_id": {"any_": [task_id]}}
            page = self.server.ask("/logs/filter", {"logs": of_run, "sort": "TIMESTAMP_ASC", "offset": len(messages)})
            messages += [one["message"] for one in page]
            if len(page) < 200:
                return "\n".join(messages)

    def told(self, name: str) -> str:
        """What is known of a service's last run, for the message of a test that fails."""
        from deployments.services.overview import show

        service = show(name)
        log = self.log(service.last_run.id)[-3000:] if service.last_run else ""
        workers = [one.log.read_text(errors="replace")[-1500:] for one in self.workers.values()]
        return "\n".join([f"{service!r}", log, *workers])

    def deployment(self, name: str) -> dict[str, Any]:
        """A service's deployment, as the API gives it."""
        found: dict[str, Any] = self.server.ask(f"/deployments/name/batch_service/{name}")
        return found

    def change(self, name: str, **fields: Any) -> None:
        """Change fields of a service's specification behind Thresher's back, and allow the server whatever they are."""
        deployment = self.deployment(name)
        parameters = {"service": {**deployment["parameters"]["service"], **fields}}
        body = {"parameters": parameters, "enforce_parameter_schema": False}
        self.server.ask(f"/deployments/{deployment['id']}", body, "PATCH")

    def run(self, name: str, /, **changed: Any) -> str:
        """Start a service as the user interface does, with changed fields; the flow run's id."""
        deployment = self.deployment(name)
        parameters = {"service": {**deployment["parameters"]["service"], **changed}}
        body = {"parameters": parameters} if changed else {}
        return str(self.server.ask(f"/deployments/{deployment['id']}/create_flow_run", body)["id"])

    def set_state(self, task_id: str, state: str) -> None:
        """Let the server take a run for one in this state."""
        self.server.ask(f"/flow_runs/{task_id}/set_state", {"state": {"type": state}, "force": True})


def _stack(kind: str, folder: Path, cache: Path) -> Iterator[Stack]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from deployments.set_up.pools import apply_pools

    pools = folder / "pools"
    pools.mkdir(parents=True)
    shutil.copy(POOLS / "public-cpu.yaml", pools)
    for own in OWN_POOLS:
        (pools / f"{own}.yaml").write_text(OWN_POOL.format(name=own))
    with ExitStack() as block:
        server = block.enter_context(SERVERS[kind](folder / "server"))
        collector = block.enter_context(OtlpReceiver())
        environment = server.environment | {
            "THRESHER_CACHE": str(cache),
            "THRESHER_MODEL_STORE": str(folder / "models"),
            "THRESHER_LOG_STORE": str(folder / "logs"),
            "THRESHER_LOG_OTLP_ENDPOINT": collector.url,
            "THRESHER_POOLS": str(pools),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        with temporary_settings(updates={PREFECT_API_URL: server.api}):
            apply_pools(pools)
        stack = Stack(server, {}, block, environment, pools, collector)
        stack.attend("public-cpu")
        try:
            yield stack
        finally:
            for one in stack.workers.values():  # all at once: each takes a while
                if one.process is not None:
                    one.process.terminate()


@pytest.fixture(scope="session")
def _sqlite_stack(
    tmp_path_factory: pytest.TempPathFactory, environments_cache: Path, _nothing_left_behind: None
) -> Iterator[Stack]:
    yield from _stack("sqlite", tmp_path_factory.mktemp("stack"), environments_cache)


@pytest.fixture(scope="session")
def _postgres_stack(
    tmp_path_factory: pytest.TempPathFactory, environments_cache: Path, _nothing_left_behind: None
) -> Iterator[Stack]:
    yield from _stack("postgres", tmp_path_factory.mktemp("stack"), environments_cache)


@pytest.fixture
def speak_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[PrefectServer, Mapping[str, str]], None]]:
    """Lets this process's Prefect and Thresher speak to a server until the test ends."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with ExitStack() as block:

        def speak(server: PrefectServer, environment: Mapping[str, str]) -> None:
            for name, value in environment.items():
                if name != "PREFECT_HOME":
                    monkeypatch.setenv(name, value)
            settings = {PREFECT_API_URL: server.api, PREFECT_API_AUTH_STRING: server.auth_string or None}
            block.enter_context(temporary_settings(updates=settings))

        yield speak


@pytest.fixture
def command_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls a command in this process: its exit code and what it has printed."""
    from deployments.cli import _call
    from deployments.terminal.door import guarded

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "ERROR")  # which commands set and leave
        given = [str(one) for one in arguments]
        capsys.readouterr()
        code = guarded(lambda: _call(given), verbose=False)
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(given, code, printed.out, printed.err)

    return call


def _each(*also_on_postgres: pytest.MarkDecorator) -> Any:
    marks = {
        kind: [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group(f"lifecycle-{kind}")] for kind in SERVERS
    }
    marks["postgres"] += also_on_postgres
    return [pytest.param(kind, marks=marks[kind]) for kind in SERVERS]


@pytest.fixture(params=_each())
def every_stack(request: pytest.FixtureRequest, speak_to: Callable[..., None]) -> Stack:
    """Each kind of server in turn, which this process speaks to: for what a database may do differently."""
    found: Stack = request.getfixturevalue(f"_{request.param}_stack")
    speak_to(found.server, found.environment)
    return found


@pytest.fixture(params=_each(pytest.mark.soak))
def stack(request: pytest.FixtureRequest, speak_to: Callable[..., None]) -> Stack:
    """The server on SQLite; in ``make soak`` each kind."""
    found: Stack = request.getfixturevalue(f"_{request.param}_stack")
    speak_to(found.server, found.environment)
    return found


@pytest.fixture
def sqlite_stack(_sqlite_stack: Stack, speak_to: Callable[..., None]) -> Stack:
    """The server on SQLite, for what needs to be tried once only; mark such tests with its xdist_group."""
    speak_to(_sqlite_stack.server, _sqlite_stack.environment)
    return _sqlite_stack


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for this test's service: services stay on the server until the end."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name.removeprefix("test_"))[-60:].strip("-")


@pytest.fixture
def fields(
    name: str, tmp_path: Path, running: dict[str, str], write_files: Callable[..., Path]
) -> Callable[..., dict[str, Any]]:
    """Fields of a service over these items, whose model runs already unless a package is given."""

    def make(items: Mapping[str, bytes | str] | None = None, **others: Any) -> dict[str, Any]:
        write_files(tmp_path / "in", items or {"a.bin": b"a", "b.bin": b"b"})
        model = {} if "model" in others else running
        paths = {"input_path": str(tmp_path / "in"), "output_path": str(tmp_path / "out")}
        return {"name": name, **paths, **model, "resource_pool": "public-cpu", "request_path": "/", **others}

    return make


@pytest.fixture
def manifest() -> Callable[[str], list[dict[str, str]]]:
    """The lines of an output manifest at an address."""

    def read(address: str) -> list[dict[str, str]]:
        text = Path(address.removeprefix("file://")).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    return read
