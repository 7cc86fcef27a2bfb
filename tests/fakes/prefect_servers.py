"""Real Prefect servers as context managers: one on SQLite, one on PostgreSQL with Redis messaging; and their workers.

    with postgres_redis_server(folder) as server, worker(server, "public-cpu"):
        requests.get(server.api + "/health")

All of them use free ports of 127.0.0.1 and folders of their own, and end with the block or with this process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from fakes import processes

START_SECONDS = 240.0
"""Far more than a server needs to start, including the creation of PostgreSQL's tables."""
SHARED = "TESTS_SHARED"
"""The variable that names the folder shared by all test processes of a session."""
_LEAN = ("PREFECT_API_BLOCKS_REGISTER_ON_START", "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION")


@dataclass(frozen=True)
class PrefectServer:
    """A running Prefect server."""

    api: str
    folder: Path
    """The folder of its logs, those of its workers, and `home`, the PREFECT_HOME of its clients."""
    auth_string: str = ""
    database: Path | None = None
    """The SQLite database, if it is one."""
    web: WebServer | None = None
    """Its process, which can be ended and started again."""

    @property
    def ui(self) -> str:
        """Address of the user interface."""
        return self.api.removesuffix("/api")

    @property
    def environment(self) -> dict[str, str]:
        """Variables of clients and workers."""
        return {
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(self.folder / "home"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.2",
            "DO_NOT_TRACK": "1",
            **({"PREFECT_API_AUTH_STRING": self.auth_string} if self.auth_string else {}),
        }

    def ask(self, path: str, body: Mapping[str, Any] | None = None, method: str = "") -> Any:
        """The response of the API; a `body` is sent by POST, unless another `method` is given."""
        user, _, password = self.auth_string.partition(":")

        def answered() -> list[requests.Response]:
            answer = requests.request(
                method or ("GET" if body is None else "POST"), self.api + path, json=body, timeout=60,
                auth=(user, password) if self.auth_string else None,
            )  # fmt: skip
            return [] if answer.status_code == 503 else [answer]  # SQLite is busy with another writer

        (answer,) = processes.poll(answered, f"the server to be less busy than for {path}")
        answer.raise_for_status()
        return answer.json() if answer.content else None


def all_sent() -> None:
    """Send all that this process's Prefect has queued for its server; what follows goes to the server set by then."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)


def migrated(database: Path) -> str:
    """Create a server's SQLite database with Prefect's tables, empty, unless it exists; its URL.

    The tables are created once in a session: all of Prefect's migrations take a server four seconds.
    """
    from deployments.local_stack.sqlite_cursors import sqlite_url

    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if SHARED in os.environ and not database.exists():
        shared = Path(os.environ[SHARED])
        made, half = shared / "migrated.db", shared / "half-migrated.db"
        with (shared / "migrated.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                _migrate(shared / "home", sqlite_url(half))
                half.rename(made)
        shutil.copy(made, database)
        database.chmod(0o600)
    return sqlite_url(database)


def _migrate(home: Path, url: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": url,
    }
    done = subprocess.run(
        _prefect("server", "database", "upgrade", "--yes"), env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        preexec_fn=processes.die_with_parent,
    )  # fmt: skip
    if done.returncode:
        raise processes.FakeDidNotStart(f"no database: {done.stdout[-2000:]}")


@contextlib.contextmanager
def sqlite_server(folder: Path, *, auth_string: str = "", address: str = "127.0.0.1") -> Iterator[PrefectServer]:
    """A Prefect server in one process, with its database in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "prefect.db"
    own = {"PREFECT_API_DATABASE_CONNECTION_URL": migrated(database)}
    with _web_server(folder, own, auth_string, database=database, address=address) as server:
        yield server


@contextlib.contextmanager
def postgres_redis_server(folder: Path, *, auth_string: str = "") -> Iterator[PrefectServer]:
    """A Prefect server for many users: web server and background services in separate processes."""
    folder.mkdir(parents=True, exist_ok=True)
    with _postgres(folder) as database, _redis(folder) as redis_port:
        own = {
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
            "PREFECT_REDIS_MESSAGING_PORT": str(redis_port),
            "PREFECT_SERVER_DOCKET_URL": f"redis://127.0.0.1:{redis_port}/1",
        }
        with _web_server(folder, own, auth_string, "--no-services") as server:
            log = folder / "services.log"
            environment = environment_of(server) | own
            services = processes.start(_prefect("server", "services", "start"), log, environment)
            try:
                processes.wait_until(lambda: b"Starting services" in log.read_bytes(), services, log, START_SECONDS)
                yield server
                assert services.poll() is None, f"the services ended by themselves: {log.read_text()[-2000:]}"
            finally:
                processes.stop(services, 15)


@contextlib.contextmanager
def worker(server: PrefectServer, pool: str, environment: Mapping[str, str] | None = None) -> Iterator[WorkerProcess]:
    """A worker of a pool of plain processes, once the server has registered it."""
    one = WorkerProcess(server, pool, environment or {})
    try:
        one.start()
        yield one
    finally:
        one.stop()


class WorkerProcess:
    """A worker, which can be ended and started again."""

    def __init__(self, server: PrefectServer, pool: str, environment: Mapping[str, str]) -> None:
        self.server = server
        self.pool = pool
        self.log = server.folder / f"worker-{pool}.log"
        self._environment = environment
        self._started = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the worker and wait until it is ONLINE."""
        self._started += 1
        name = f"test {self.pool} {os.getpid()} {self._started}"
        command = _prefect("worker", "start", "--pool", self.pool, "--type", "process", "--name", name)
        environment = environment_of(self.server) | {"PREFECT_WORKER_QUERY_SECONDS": "1", **self._environment}
        self.process = processes.start(command, self.log, environment)

        def online() -> bool:
            found = self.server.ask(f"/work_pools/{self.pool}/workers/filter", {})
            return any(one["name"] == name and one["status"] == "ONLINE" for one in found)

        processes.wait_until(online, self.process, self.log, START_SECONDS)

    def stop(self) -> None:
        """End the worker and the runs that it has started."""
        if self.process is not None:
            processes.stop(self.process, 45)


class WebServer:
    """The process of a Prefect server, which can be ended and started again on the same port."""

    def __init__(self, address: str, port: int, log: Path, options: Sequence[str]) -> None:
        self.environment: Mapping[str, str] = {}
        self._health = f"http://{address}:{port}/api/health"
        self._log = log
        self._command = _prefect("server", "start", "--host", address, "--port", str(port), *options)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.process = processes.start(self._command, self._log, self.environment)
        processes.wait_until(self._answers, self.process, self._log, START_SECONDS)

    def stop(self) -> None:
        """End the server."""
        if self.process is not None:
            processes.stop(self.process, 15)

    def _answers(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(self._health, timeout=2).status_code in (200, 401)
        return False


def _prefect(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *arguments]


def environment_of(server: PrefectServer) -> dict[str, str]:
    """This process's variables with those of a client of the server, and without those of another server."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return own | {"PATH": path, "PYTHONPATH": processes.PYTHONPATH, "PYTHONUNBUFFERED": "1"} | server.environment


@contextlib.contextmanager
def _web_server(
    folder: Path, own: Mapping[str, str], auth_string: str, *options: str, database: Path | None = None,
    address: str = "127.0.0.1",
) -> Iterator[PrefectServer]:  # fmt: skip
    port = processes.free_port()
    web = WebServer(address, port, folder / "server.log", options)
    server = PrefectServer(f"http://{address}:{port}/api", folder, auth_string, database, web)
    web.environment = environment_of(server) | {
        "PREFECT_UI_API_URL": server.api,
        "PREFECT_SERVER_UI_API_URL": server.api,
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        **dict.fromkeys(_LEAN, "false"),
        **({"PREFECT_SERVER_API_AUTH_STRING": auth_string} if auth_string else {}),
        **own,
    }
    try:
        web.start()
        yield server
    finally:
        web.stop()


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[int]:
    port = processes.free_port()
    log = folder / "redis.log"
    command = [
        *(_program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
        *("--dir", str(folder)),
    ]
    process = processes.start(command, log, os.environ)
    try:
        processes.wait_until(lambda: b"Ready to accept connections" in log.read_bytes(), process, log, START_SECONDS)
        yield port
    finally:
        processes.stop(process, 10)


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server with an empty database; its address for Prefect."""
    port = processes.free_port()
    log = folder / "postgres.log"
    # Not below pytest's folder: only its owner can enter that, and root may not run PostgreSQL.
    home = Path(tempfile.mkdtemp(prefix="tests-postgres-", dir="/tmp"))
    as_whom = _ordinary_user()
    try:
        if as_whom:
            os.chown(home, as_whom.pw_uid, as_whom.pw_gid)
        initdb = [_program("initdb"), "-D", str(home / "data"), "-U", "prefect", "-A", "trust", "-E", "UTF8"]
        _run([*initdb, "--no-sync", "--locale", "C"], log, as_whom)
        command = [
            *(_program("postgres"), "-D", str(home / "data"), "-p", str(port), "-k", str(home), "-h", "127.0.0.1"),
            *("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"),
            *("-c", "max_connections=200"),
        ]
        process = _start(command, log, as_whom)

        def ready() -> bool:
            asked = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            return subprocess.run(asked, check=False).returncode == 0

        try:
            processes.wait_until(ready, process, log, START_SECONDS)
            _run([_program("createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect"], log, as_whom)
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
        finally:
            if process.poll() is None:
                process.send_signal(2)  # the fast shutdown: clients are disconnected
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            processes.stop(process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _ordinary_user() -> pwd.struct_passwd | None:
    """The account that runs PostgreSQL; None for that of the tests."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def _start(command: Sequence[str], log: Path, as_whom: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
    def before() -> None:
        if as_whom:  # first, since a change of the user resets the parent-death signal
            os.setgroups([])
            os.setgid(as_whom.pw_gid)
            os.setuid(as_whom.pw_uid)
        processes.die_with_parent()

    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd="/", preexec_fn=before,
        )  # fmt: skip


def _run(command: Sequence[str], log: Path, as_whom: pwd.struct_passwd | None) -> None:
    process = _start(command, log, as_whom)
    try:
        if process.wait(START_SECONDS):
            raise processes.FakeDidNotStart(f"{command}: code {process.returncode}\n{log.read_text()[-2000:]}")
    finally:
        processes.stop(process)


def _program(name: str) -> str:
    """Path of a program; Debian keeps PostgreSQL's out of PATH. Raises FakeDidNotStart if it is not installed."""
    if found := shutil.which(name):
        return found
    for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True):
        return str(path)
    raise processes.FakeDidNotStart(f"{name} is not installed: sh tests/system-packages.sh installs it")
