"""Distributed mode on several hosts, each with a network of its own: the links between them are cut in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed import rpc
from distributed.security import Security
from fakes import hosts, processes
from fakes.certificates import pem_files
from fakes.hosts import Host, Network
from fakes.model_behaviour import item_key
from fakes.prefect_servers import PrefectServer, sqlite_server
from fakes.s3_server import S3Server

from tasks.clients.dask_security import made_identity

_WHY_NOT = hosts.why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("hosts"),
    pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT),
]

ROOT = Path(__file__).parents[2]
SCHEDULER_PORT = 8786
ITEMS = 400
FREE = 120
"""Items before this one are answered at once, the others when the gate is opened."""
CUT_SECONDS = 20.0 if processes.FULL_LENGTH else 7.0
"""How long a link is cut that comes back. A connection is given up after 30 s, or after 12 s (Dask takes no less)."""
SOONER = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "THRESHER_DOWNLOAD_TIMEOUT_SECONDS": "10",
    "THRESHER_STORAGE_RETRY_SECONDS": "20",
    "THRESHER_LEFT_ALONE_SECONDS": "30",
}
"""What is given up sooner than usual, unless outages have their full length."""
LONG = 600.0
"""Far beyond what a run takes, with what Dask takes to see that a worker is gone."""


@dataclass
class Site:
    """A Prefect server and a Dask scheduler on one host, two hosts with a worker each, and one with the storage."""

    folder: Path
    control: Host
    storage: Host
    instances: list[Host]
    server: PrefectServer
    s3: S3Server
    certificates: dict[str, str]
    """Files, by the names of the pool's fields."""

    @property
    def scheduler(self) -> str:
        """Address of the Dask scheduler."""
        return f"tls://{self.control.address}:{SCHEDULER_PORT}"

    @property
    def tls(self) -> list[str]:
        """What Dask's commands are given to talk to those of the same certificate only."""
        return [
            *("--tls-ca-file", self.certificates["ca_file"], "--tls-cert", self.certificates["certificate_file"]),
            *("--tls-key", self.certificates["key_file"]),
        ]

    def environment(self, host: Host) -> dict[str, str]:
        """Variables of a process of Thresher on a host."""
        scratch = self.folder / host.name
        scratch.mkdir(exist_ok=True)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "THRESHER_"))},
            **self.server.environment,
            **self.s3.environment(),
            "PREFECT_HOME": str(scratch / "prefect"),
            "THRESHER_CACHE": str(scratch / "cache"),
            "THRESHER_POOLS": str(self.folder / "pools"),
            "THRESHER_SHARD_ITEMS": "50",
            "THRESHER_REPORT_SECONDS": "1",
            "THRESHER_DOWNLOAD_TIMEOUT_SECONDS": "30",  # what hangs on a link that was cut is given up then
            "PYTHONPATH": processes.PYTHONPATH,
            **({} if processes.FULL_LENGTH else SOONER),
        }

    def workers(self) -> list[str]:
        """Addresses of the workers that the scheduler knows."""

        async def ask() -> list[str]:
            security = Security(
                tls_ca_file=self.certificates["ca_file"], tls_client_cert=self.certificates["certificate_file"],
                tls_client_key=self.certificates["key_file"],
            )  # fmt: skip
            async with rpc(self.scheduler, connection_args=security.get_connection_args("client")) as scheduler:
                return list((await scheduler.identity(n_workers=-1))["workers"])

        with self.control.inside():
            return asyncio.run(ask())

    def model_servers(self, host: Host) -> list[int]:
        """Ids of the model servers, and of their wardens, that run on a host."""
        found = []
        for pid in host.pids:
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"model_server.py" in line or b"warden.py" in line:
                    found.append(pid)
        return found

    def keep_a_worker(self, host: Host) -> None:
        """Start a Dask worker on a host, and again whenever it ends, as a service manager does."""
        command = [
            *(sys.executable, "-m", "distributed.cli.dask_worker", self.scheduler, "--nworkers", "1", "--nthreads"),
            *("3", "--no-dashboard", "--host", host.address, "--local-directory", str(self.folder / host.name)),
            *self.tls,
        ]
        self._keep(host, command)

    def keep_a_scheduler(self) -> None:
        """Start the Dask scheduler, and again whenever it ends."""
        command = [
            *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", self.control.address, "--port"),
            *(str(SCHEDULER_PORT), "--no-dashboard", "--protocol", "tls", *self.tls),
        ]
        self._keep(self.control, command)

    def _keep(self, host: Host, command: list[str]) -> None:
        again = ["sh", "-c", 'while :; do "$@"; sleep 1; done', "sh", *command]
        host.start(again, self.folder / f"{host.name}.log", self.environment(host))

    def schedulers(self) -> list[int]:
        """Ids of the Dask scheduler's processes, the shell that keeps it not among them."""
        found = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in self.control.pids}
        return [pid for pid, line in found.items() if b"dask_scheduler" in line and not line.startswith(b"sh\0")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, _nothing_left_behind: None) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with Network() as network, contextlib.ExitStack() as stack:
        control, storage = network.host("control"), network.host("storage")
        instances = [network.host("one"), network.host("two")]
        with storage.inside():
            s3 = stack.enter_context(S3Server(folder / "s3", address=storage.address))
        with control.inside():
            server = stack.enter_context(sqlite_server(folder / "prefect", address=control.address))
        certificates = pem_files(folder / "certificates", made_identity())
        site = Site(folder, control, storage, instances, server, s3, certificates)
        pool = {
            "name": "site", "flavors": [{"name": "small", "cpu": 1, "memory_gb": 1}],
            "cluster": {"kind": "scheduler", "address": site.scheduler, **certificates},
        }  # fmt: skip
        (folder / "pools").mkdir()
        (folder / "pools" / "site.yaml").write_text(yaml.safe_dump(pool))
        site.keep_a_scheduler()
        for host in instances:
            site.keep_a_worker(host)

        def there() -> bool:
            with contextlib.suppress(OSError):
                return len(site.workers()) == 2
            return False

        processes.poll(there, "two workers of the scheduler", 240)
        yield site


def text(number: int, gate: Path) -> str:
    """What item ``number`` says."""
    if number % 40 == 7:
        return f"{number} FAIL:404"
    return f"{number} FAIL:until:{gate}" if number >= FREE else f"item {number}"


def body(number: int, gate: Path) -> bytes:
    """The request of item ``number``, and its answer."""
    return json.dumps({"n": number, "text": text(number, gate)}, separators=(",", ":")).encode()


class Running:
    """A run of a service over all hosts, in a process of its own on the control host."""

    def __init__(self, site: Site, folder: Path, package: Any) -> None:
        self.site = site
        self.package = package
        self.bucket = folder.name.replace("_", "-").lower()
        self.gate = folder / "gate"
        self._states = folder / "states"
        self._states.mkdir()
        script = f'exec {sys.executable} {ROOT}/tests/fakes/model_server.py --state "{self._states}/$$.json"\n'
        with site.control.inside():
            for number in range(ITEMS):
                row = f"{'x' if number % 40 == 3 else number},{text(number, self.gate)}\n"
                site.s3.put(self.bucket, f"in/{number:04d}.csv", row.encode())
        self.log = folder / "run.log"
        self._answer = folder / "answer.json"
        fields = {
            "name": "over-hosts", "resource_pool": "site", "request_path": "/echo", "instances": 2,
            "model": str(package(script=script, folder=f"package of {folder.name}")),
            "input_path": f"s3://{self.bucket}/in/", "output_path": f"s3://{self.bucket}/out/",
        }  # fmt: skip
        spec = folder / "spec.yaml"
        spec.write_text(yaml.safe_dump(fields))
        command = [str(Path(sys.executable).with_name("thresher")), "run", str(spec), "--json", "--verbose"]
        self.process = site.control.start(
            ["sh", "-c", 'exec "$@" >"$0"', str(self._answer), *command], self.log, site.environment(site.control)
        )

    def in_the_middle(self) -> bool:
        """Whether both instances hold items that wait for the gate."""
        assert self.process.poll() is None, self.log.read_text()
        gated = {item_key(body(number, self.gate)) for number in range(FREE, ITEMS)}
        held = 0
        for path in self._states.glob("*.json"):
            held += bool(gated & set(json.loads(path.read_text())["seen"]))
        return held == 2

    def wait_for_the_middle(self) -> None:
        """Returns when both instances wait for the gate."""
        processes.poll(self.in_the_middle, lambda: f"the middle of the run:\n{self.log.read_text()}", LONG)

    def open_the_gate(self) -> None:
        """Let the model servers answer."""
        self.gate.touch()

    def said(self, words: str) -> bool:
        """Whether the run's log says so."""
        assert self.process.poll() is None, self.log.read_text()
        return words in self.log.read_text()

    def wait(self) -> dict[str, Any]:
        """What the command answers, when it has ended."""
        self.process.wait(LONG)
        assert self.process.returncode == 1, self.log.read_text()  # some items are bad
        said = self._answer.read_text()
        assert said, self.log.read_text()
        answer: dict[str, Any] = json.loads(said)
        return answer

    def check(self) -> None:
        """Every item has one line, in order, and those that are not bad have their result."""
        answer = self.wait()
        assert not answer["failure"], answer
        with self.site.control.inside():
            name = answer["manifest"].partition(f"{self.bucket}/")[2]
            lines = [json.loads(line) for line in self.site.s3.get(self.bucket, name).decode().splitlines()]
            prefix = f"s3://{self.bucket}/in/"
            assert [line["source"] for line in lines] == [f"{prefix}{number:04d}.csv" for number in range(ITEMS)]
            bad = {number for number in range(ITEMS) if number % 40 in (3, 7)}
            assert {n: line for n, line in enumerate(lines) if line["result"] == "FAILED" and n not in bad} == {}
            assert all(lines[number]["result"] == "FAILED" for number in bad)
            folder = name.removesuffix(".manifest")
            names = set(self.site.s3.keys(self.bucket, "out/"))
            results = {key for key in names if key.startswith(f"{folder}/")}
            assert results == {f"{folder}/{n:04d}.csv_result.txt" for n in range(ITEMS) if n % 40 != 3 and n % 40 != 7}
            for number in sorted(set(range(ITEMS)) - bad):
                got = self.site.s3.get(self.bucket, f"{folder}/{number:04d}.csv_result.txt")
                assert got == body(number, self.gate) + b"\n"
        assert self.rest() == set()
        assert (answer["successful"], answer["failed"]) == (ITEMS - len(bad), len(bad))

    def rest(self) -> set[str]:
        """Objects in the output folder that are of no use to the user."""
        with self.site.control.inside():
            names = self.site.s3.keys(self.bucket, "out/")
        wanted = re.compile(r"out/infer-result-[0-9a-f-]{36}(/.+|\.manifest|\.summary\.json|\.logs/.+)")
        return {name for name in names if not wanted.fullmatch(name)}


@pytest.fixture
def running(site: Site, tmp_path: Path, package: Any) -> Iterator[Running]:
    processes.poll(lambda: len(site.workers()) == 2, "two workers of the scheduler", LONG)
    run = Running(site, tmp_path, package)
    try:
        yield run
    finally:
        for host in (*site.instances, site.storage):
            host.mend()
            host.up()
            host.reach(site.storage)
        run.open_the_gate()
        processes.stop(run.process, 60)


def nothing_runs_on(site: Site, *there: Host) -> None:
    """No model server is left on these hosts."""
    processes.poll(lambda: not any(map(site.model_servers, there)), "the model servers to end", LONG)


def test_hosts__share_the_work_and_every_item_has_its_line(site: Site, running: Running) -> None:
    running.wait_for_the_middle()
    running.open_the_gate()
    running.check()
    nothing_runs_on(site, *site.instances)


def test_hosts__go_on_without_one_whose_link_is_cut_for_good(site: Site, running: Running) -> None:
    running.wait_for_the_middle()
    site.instances[1].cut()
    running.open_the_gate()
    running.check()
    nothing_runs_on(site, *site.instances)


@pytest.mark.parametrize("how", ["the cable", "the interface", "the storage"])
def test_hosts__lose_nothing_when_a_link_is_cut_for_a_while(site: Site, running: Running, how: str) -> None:
    running.wait_for_the_middle()
    host = site.storage if how == "the storage" else site.instances[1]
    host.down() if how == "the interface" else host.cut()
    running.open_the_gate()
    time.sleep(CUT_SECONDS)  # the length of the outage is what is tried
    host.up() if how == "the interface" else host.mend()
    running.check()
    nothing_runs_on(site, *site.instances)


def test_hosts__go_on_without_one_that_does_not_reach_the_storage(site: Site, running: Running) -> None:
    running.wait_for_the_middle()
    site.instances[1].cut_off_from(site.storage)
    running.open_the_gate()
    running.check()
    assert "instance-1 cut off" in running.log.read_text()
    site.instances[1].reach(site.storage)
    nothing_runs_on(site, *site.instances)


def test_hosts__use_one_again_that_was_lost_and_came_back(site: Site, running: Running) -> None:
    running.wait_for_the_middle()
    servers = site.model_servers(site.instances[1])
    site.instances[1].cut()
    processes.poll(lambda: running.said("lost: its process"), "the worker to be seen as lost", LONG)
    site.instances[1].mend()
    processes.poll(
        lambda: set(site.model_servers(site.instances[1])) - set(servers) and len(site.workers()) == 2,
        lambda: f"an instance on the host that came back:\n{running.log.read_text()}",
        LONG,
    )
    running.open_the_gate()
    running.check()
    nothing_runs_on(site, *site.instances)
    assert running.rest() == set()


def test_hosts__serve_the_next_run_when_one_was_killed(site: Site, running: Running, tmp_path: Path) -> None:
    running.wait_for_the_middle()
    running.process.kill()  # the shell has become the command
    nothing_runs_on(site, *site.instances)
    assert len(site.workers()) == 2
    folder = tmp_path / "next-run"
    folder.mkdir()
    again = Running(site, folder, running.package)
    try:
        again.wait_for_the_middle()
        again.open_the_gate()
        again.check()
    finally:
        processes.stop(again.process, 60)
    nothing_runs_on(site, *site.instances)


def test_hosts__go_on_when_the_scheduler_is_started_again(site: Site, running: Running) -> None:
    running.wait_for_the_middle()
    (scheduler,) = site.schedulers()
    os.kill(scheduler, signal.SIGKILL)
    running.open_the_gate()
    running.check()
    nothing_runs_on(site, *site.instances)


def test_hosts__without_a_scheduler_end_the_run_saying_so(site: Site, running: Running) -> None:
    running.wait_for_the_middle()
    (scheduler,) = site.schedulers()
    keeper = int(Path(f"/proc/{scheduler}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGSTOP)
    try:
        os.kill(scheduler, signal.SIGKILL)
        assert running.process.wait(LONG) == 1
        said = f"The Dask scheduler {site.scheduler} of the resource pool does not answer any more."
        told = running.log.read_text()
        assert f"{said} What was done is kept: resumed, the run does the rest." in told
        nothing_runs_on(site, *site.instances)
    finally:
        os.kill(keeper, signal.SIGCONT)


def test_network__ends_what_runs_on_its_hosts_and_leaves_no_namespace(tmp_path: Path) -> None:
    with Network() as network:
        host, other = network.host("host"), network.host("other")
        command = [sys.executable, "-m", "http.server", "8000", "--bind", host.address, "--directory", str(tmp_path)]
        process = host.start(command, tmp_path / "log", os.environ)

        def answers() -> bool:
            with other.inside():
                asked = subprocess.run(
                    [sys.executable, "-c", f"import socket; socket.create_connection(('{host.address}', 8000), 2)"],
                    capture_output=True,
                    check=False,
                )
            return not asked.returncode

        processes.poll(answers, "the server to answer the other host")
        host.cut()
        assert not answers()
        host.mend()
        processes.poll(answers, "the server to answer again")
        assert process.pid in host.pids
        made = set(Path("/run/netns").glob(f"{host.namespace.removesuffix('host')}*"))
    assert process.wait(60) == -signal.SIGKILL
    assert len(made) == 3 and not any(path.exists() for path in made)
