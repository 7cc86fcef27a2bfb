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
from collections.abc import Callable, Iterator
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

from tasks.clients.cluster.dask_security import made_identity

_WHY_NOT = hosts.why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("hosts"),
    pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT),
]

ROOT = Path(__file__).parents[2]
SCHEDULER_PORT = 8786
ITEMS, FREE, SHARD_ITEMS = (400, 120, 50) if processes.FULL_LENGTH else (160, 40, 10)
"""The first items, as many as FREE says, are answered at once, each of the others when its gate is opened."""
CUT_SECONDS = 20.0 if processes.FULL_LENGTH else 7.0
"""How long a link is cut that comes back. A connection is given up after 30 s, or after 12 s (Dask takes no less)."""
SOONER = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "THRESHER_DOWNLOAD_TIMEOUT_SECONDS": "10",
    "THRESHER_STORAGE_RETRY_SECONDS": "15",
    "THRESHER_LEFT_ALONE_SECONDS": "20",
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
            "THRESHER_SHARD_ITEMS": str(SHARD_ITEMS),
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


class Gates:
    """Which items wait, and for which file: each gate holds as many as the others, and they are opened one by one."""

    def __init__(self, folder: Path, count: int) -> None:
        self._files = [folder / f"gate-{number}" for number in range(count)]
        self._first = [FREE + (ITEMS - FREE) * number // count for number in range(count)]

    def text(self, number: int) -> str:
        """What item ``number`` says."""
        if number % 40 == 7:
            return f"{number} FAIL:404"
        before = [file for file, first in zip(self._files, self._first, strict=True) if first <= number]
        return f"{number} FAIL:until:{before[-1]}" if before else f"item {number}"

    def body(self, number: int) -> bytes:
        """The request of item ``number``, and its answer."""
        return json.dumps({"n": number, "text": self.text(number)}, separators=(",", ":")).encode()

    def held(self) -> set[str]:
        """Keys of all items that wait for a gate that is closed."""
        closed = [first for file, first in zip(self._files, self._first, strict=True) if not file.exists()]
        return {item_key(self.body(number)) for number in range(closed[0], ITEMS)} if closed else set()

    def open(self, *, all_: bool = False) -> None:
        """Let the model servers answer the items of the first gate that is closed, or of all."""
        for file in self._files:
            if not file.exists():
                file.touch()
                if not all_:
                    return


class Running:
    """A run of a service over all hosts, in a process of its own on the control host."""

    def __init__(self, site: Site, folder: Path, package: Any, gates: int = 1) -> None:
        folder.mkdir()
        self.site = site
        self.bucket = folder.parent.name.replace("_", "-").lower() + folder.name
        self.gates = Gates(folder, gates)
        self._hosts = site.instances
        self._states = folder / "states"
        self._states.mkdir()
        script = f'exec {sys.executable} {ROOT}/tests/fakes/model_server.py --state "{self._states}/$$.json"\n'
        with site.control.inside():
            for number in range(ITEMS):
                row = f"{'x' if number % 40 == 3 else number},{self.gates.text(number)}\n"
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
        """Whether both instances hold items that wait for a gate."""
        assert self.process.poll() is None, self.log.read_text()
        gated = self.gates.held()
        states = {host: [self._states / f"{pid}.json" for pid in self.site.model_servers(host)] for host in self._hosts}
        return all(
            any(gated & set(json.loads(path.read_text())["seen"]) for path in paths if path.exists())
            for paths in states.values()
        )

    def wait_for_the_middle(self) -> None:
        """Returns when both instances wait for a gate."""
        processes.poll(self.in_the_middle, lambda: f"the middle of the run:\n{self.log.read_text()}", LONG)

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
                assert got == self.gates.body(number) + b"\n"
        assert self.rest() == set()
        assert (answer["successful"], answer["failed"]) == (ITEMS - len(bad), len(bad))

    def rest(self) -> set[str]:
        """Objects in the output folder that are of no use to the user."""
        with self.site.control.inside():
            names = self.site.s3.keys(self.bucket, "out/")
        wanted = re.compile(r"out/infer-result-[0-9a-f-]{36}(/.+|\.manifest|\.summary\.json|\.logs/.+)")
        return {name for name in names if not wanted.fullmatch(name)}


@pytest.fixture
def run_over(site: Site, tmp_path: Path, package: Any) -> Iterator[Callable[..., Running]]:
    """Begins a run, whose items wait for so many gates one after the other."""
    processes.poll(lambda: len(site.workers()) == 2, "two workers of the scheduler", LONG)
    begun: list[Running] = []

    def begin(gates: int = 1) -> Running:
        begun.append(Running(site, tmp_path / f"run-{len(begun)}", package, gates))
        return begun[-1]

    try:
        yield begin
    finally:
        for host in (*site.instances, site.storage):
            host.mend()
            host.up()
            host.reach(site.storage)
        for run in begun:
            run.gates.open(all_=True)
            processes.stop(run.process, 60)


def nothing_runs_on(site: Site, *there: Host) -> None:
    """No model server is left on these hosts."""
    processes.poll(lambda: not any(map(site.model_servers, there)), "the model servers to end", LONG)


def test_hosts__lose_nothing_when_links_are_cut_for_a_while_and_then_one_for_good(
    site: Site, run_over: Callable[..., Running]
) -> None:
    run, host = run_over(4), site.instances[1]
    for cut, mend in ((host.cut, host.mend), (host.down, host.up), (site.storage.cut, site.storage.mend)):
        run.wait_for_the_middle()
        cut()
        run.gates.open()
        time.sleep(CUT_SECONDS)  # the length of the outage is what is tried
        mend()
    run.wait_for_the_middle()
    host.cut()
    run.gates.open()
    run.check()
    nothing_runs_on(site, *site.instances)


def test_hosts__go_on_without_one_that_does_not_reach_the_storage(site: Site, run_over: Callable[..., Running]) -> None:
    run = run_over()
    run.wait_for_the_middle()
    site.instances[1].cut_off_from(site.storage)
    run.gates.open()
    run.check()
    assert "instance-1 cut off" in run.log.read_text()
    site.instances[1].reach(site.storage)
    nothing_runs_on(site, *site.instances)


def test_hosts__serve_the_next_run_when_one_was_killed(site: Site, run_over: Callable[..., Running]) -> None:
    run = run_over()
    run.wait_for_the_middle()
    run.process.kill()  # the shell has become the command
    nothing_runs_on(site, *site.instances)
    assert len(site.workers()) == 2
    run = run_over()
    run.wait_for_the_middle()
    run.gates.open()
    run.check()
    nothing_runs_on(site, *site.instances)


def test_hosts__use_one_again_that_was_lost_and_go_on_when_the_scheduler_is_started_again(
    site: Site, run_over: Callable[..., Running]
) -> None:
    run, host = run_over(2), site.instances[1]
    run.wait_for_the_middle()
    servers = site.model_servers(host)
    host.cut()
    processes.poll(lambda: run.said("lost: its process"), "the worker to be seen as lost", LONG)
    host.mend()
    processes.poll(
        lambda: set(site.model_servers(host)) - set(servers) and len(site.workers()) == 2,
        lambda: f"an instance on the host that came back:\n{run.log.read_text()}",
        LONG,
    )
    run.gates.open()
    run.wait_for_the_middle()
    (scheduler,) = site.schedulers()
    os.kill(scheduler, signal.SIGKILL)
    run.gates.open()
    run.check()
    nothing_runs_on(site, *site.instances)


def test_hosts__without_a_scheduler_end_the_run_saying_so(site: Site, run_over: Callable[..., Running]) -> None:
    run = run_over()
    run.wait_for_the_middle()
    (scheduler,) = site.schedulers()
    keeper = int(Path(f"/proc/{scheduler}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGSTOP)
    try:
        os.kill(scheduler, signal.SIGKILL)
        assert run.process.wait(LONG) == 1
        said = f"The Dask scheduler {site.scheduler} of the resource pool does not answer any more."
        told = run.log.read_text()
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
