"""The commands of compose.yaml with its settings, in its order, on PostgreSQL and a Redis with a password.

Only addresses, ports and folders are other ones; a worker of the pool then runs with the worker's own command.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from fakes import prefect_servers, processes

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())["services"]
VALUES = {
    "PREFECT_SERVER_API_AUTH_STRING": "admin:opensesame",
    "POSTGRES_PASSWORD": "databasepassword",
    "REDIS_PASSWORD": "redispassword",
    "S3_ACCESS_KEY_ID": "thekey",
    "S3_SECRET_ACCESS_KEY": "thesecret",
}
START_SECONDS = prefect_servers.START_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group("compose"), pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Machine:
    """Ports and folder that stand for the containers' own."""

    folder: Path
    postgres: str
    redis: int
    api: int
    health: Mapping[str, int]
    """Of each worker, by its service."""

    def filled(self, text: str, name: str) -> str:
        """A value of a service in compose.yaml with its variables, and with addresses of this machine."""
        text = re.sub(r"\$\{([A-Z0-9_]+)[^}]*\}", lambda found: VALUES.get(found[1], ""), text)
        for old, new in {
            "postgres:5432": self.postgres,
            "redis:6379": f"127.0.0.1:{self.redis}",
            "server:4200": f"127.0.0.1:{self.api}",
            "127.0.0.1:4200": f"127.0.0.1:{self.api}",
            "127.0.0.1:8080": f"127.0.0.1:{self.health.get(name, 0)}",
            "/data/": f"{self.folder}/data/",
        }.items():
            text = text.replace(old, new)
        return text

    def environment(self, name: str) -> dict[str, str]:
        told = {key: self.filled(value, name) for key, value in SERVICES[name]["environment"].items()}
        for key in ("PREFECT_REDIS_MESSAGING", "PREFECT_REDIS_WORKER_CLEANUP_QUEUE"):
            if f"{key}_HOST" in told:
                told |= {f"{key}_HOST": "127.0.0.1", f"{key}_PORT": str(self.redis)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        own = {"PATH": path, "HOME": str(self.folder), "PREFECT_HOME": str(self.folder / name), "PYTHONUNBUFFERED": "1"}
        return own | told | {"PREFECT_WORKER_WEBSERVER_PORT": str(self.health.get(name, 0))}

    def command(self, name: str) -> list[str]:
        ports = {"4200": str(self.api), "0.0.0.0": "127.0.0.1"}
        program, *arguments = SERVICES[name]["command"]
        scripts = Path(sys.executable).parent
        return [str(scripts / program), *(ports.get(one, one) for one in arguments)]

    def run(self, name: str) -> None:
        """Run a service that ends; fails unless it ends well."""
        done = subprocess.run(
            self.command(name),
            cwd=ROOT, env=self.environment(name), capture_output=True, text=True, timeout=START_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}"

    def start(self, name: str, running: ExitStack) -> subprocess.Popen[bytes]:
        """Start a service and wait until its health check is passed, if it has one."""
        process = processes.start(self.command(name), self.folder / f"{name}.log", self.environment(name))
        running.callback(processes.stop, process, 45)
        if "healthcheck" in SERVICES[name]:
            _, _, *check = SERVICES[name]["healthcheck"]["test"]
            check = [sys.executable, *(self.filled(one, name) for one in check)]
            processes.wait_until(
                lambda: subprocess.run(check, capture_output=True).returncode == 0,
                process, self.folder / f"{name}.log", START_SECONDS,
            )  # fmt: skip
        return process

    def ask(self, path: str, body: Mapping[str, Any] | None = None, *, password: str = "opensesame") -> Any:
        return requests.request(
            "GET" if body is None else "POST", f"http://127.0.0.1:{self.api}/api{path}",
            json=body, auth=("admin", password), timeout=30,
        )  # fmt: skip


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Everything of compose.yaml but the S3 server, running."""
    folder = tmp_path_factory.mktemp("compose")
    with ExitStack() as running:
        database = running.enter_context(prefect_servers._postgres(folder))
        address = re.sub(r".*@(.*)/.*", r"\1", database)
        redis, api = processes.free_port(), processes.free_port()
        health = {name: processes.free_port() for name in ("worker", "console")}
        one = Machine(folder, address, redis, api, health)
        script = SERVICES["redis"]["command"][-1].replace("$$", "$")
        store = processes.start(
            ["sh", "-c", f"{script} --port {redis} --bind 127.0.0.1 --dir {folder}"],
            folder / "redis.log",
            {"PATH": os.environ["PATH"], "REDISCLI_AUTH": VALUES["REDIS_PASSWORD"]},
        )
        running.callback(processes.stop, store, 10)
        processes.wait_until(
            lambda: b"Ready to accept" in (folder / "redis.log").read_bytes(), store, folder / "redis.log", 60
        )
        one.run("migrate")
        server = one.start("server", running)
        services = one.start("services", running)
        one.run("pools")
        workers = {name: one.start(name, running) for name in health}
        yield one
        for name, process in {"server": server, "services": services, **workers}.items():
            assert process.poll() is None, f"{name} ended by itself: {(folder / f'{name}.log').read_text()[-3000:]}"


def test_machine__lets_in_only_who_knows_the_password(machine: Machine) -> None:
    assert machine.ask("/flows/count", {}).status_code == 200
    assert machine.ask("/flows/count", {}, password="guessed").status_code == 401


@pytest.mark.parametrize("pool", ["public-cpu", "console"])
def test_machine__has_the_pools_the_form_and_workers(machine: Machine, pool: str) -> None:
    pools = {one["name"] for one in machine.ask("/work_pools/filter", {}).json()}
    assert {path.stem for path in (ROOT / "infra" / "pools").glob("*.yaml")} <= pools
    assert "deploy-service" in {one["name"] for one in machine.ask("/deployments/filter", {}).json()}

    def online() -> bool:
        found = machine.ask(f"/work_pools/{pool}/workers/filter", {}).json()
        return any(one["status"] == "ONLINE" for one in found)

    processes.poll(online, f"the worker of {pool}")


def test_machine__background_services_schedule_what_the_api_was_told(machine: Machine) -> None:
    """The scheduler runs in the other process: the two share the database."""
    flow = machine.ask("/flows/", {"name": "scheduled"}).json()["id"]
    schedule = {"schedule": {"interval": 3600}, "active": True}
    made = machine.ask("/deployments/", {"name": "hourly", "flow_id": flow, "schedules": [schedule]}).json()
    wanted = {"deployments": {"id": {"any_": [made["id"]]}}}
    processes.poll(lambda: machine.ask("/flow_runs/count", wanted).json(), "scheduled runs")


def test_machine__events_pass_through_redis(machine: Machine) -> None:
    """Written by the API's process, stored by the one of the background services."""
    machine.ask("/flows/", {"name": "eventful"}).raise_for_status()
    flow = machine.ask("/flows/", {"name": "eventful"}).json()["id"]
    run = {"flow_id": flow, "state": {"type": "PENDING"}}
    made = machine.ask("/flow_runs/", run).json()["id"]
    wanted = {"filter": {"resource": {"id": [f"prefect.flow-run.{made}"]}}}
    processes.poll(lambda: machine.ask("/events/filter", wanted).json()["total"], "events of the run")
