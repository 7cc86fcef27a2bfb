"""A Dask cluster of a run talks to nobody else: cluster.py, dask_security.py, dask_process.py."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
import requests
from clients.support import ROOT, run, wait_for
from distributed import Client, rpc
from distributed.comm import connect
from distributed.security import Security
from fakes import processes
from fakes.certificates import pem_files

from tasks.clients.cluster.cluster import DaskCluster, start_cluster
from tasks.clients.cluster.dask_security import CERTIFICATE, KEY, made_identity, security_of
from tasks.clients.processes.warden import below
from tasks.domain.errors import ModelServerError
from tasks.domain.pool import Cluster

PATIENCE_SECONDS = 60.0


@asynccontextmanager
async def local_cluster(folder: Path, workers: int = 1) -> AsyncIterator[DaskCluster]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    cluster = await DaskCluster.local(workers, 1, folder, environment)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(await cluster.workers()) < workers:
                await asyncio.sleep(0.05)
        yield cluster
    finally:
        await cluster.close()


async def refused(address: str, security: Security | None) -> bool:
    """Whether whoever has only this is told nothing at all at an address."""
    given = {} if security is None else security.get_connection_args("client")
    try:
        comm = await connect(address, timeout=3, **given)
        await comm.write({"op": "identity", "reply": True})
        await asyncio.wait_for(comm.read(), 3)
    except (
        OSError,
        TimeoutError,
        ssl.SSLError,
        RuntimeError,
        MemoryError,
    ):  # what else answers is no message of Dask's
        return True
    return False


def test_cluster__answers_its_own_certificate_only(tmp_path: Path) -> None:
    async def work() -> None:
        async with local_cluster(tmp_path) as cluster:
            for address in (cluster.address, *await cluster.workers()):
                assert address.startswith("tls://127.0.0.1:")
                assert not await refused(address, cluster.security)
                assert await refused(address, security_of(made_identity()))
                assert await refused(address.replace("tls", "tcp"), None)
                # Encrypted, but without any certificate of its own.
                host, port = address.removeprefix("tls://").split(":")
                bare = ssl.create_default_context()
                bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
                reader, writer = await asyncio.open_connection(host, int(port), ssl=bare)
                writer.write(b"\0" * 64)
                with pytest.raises((OSError, asyncio.IncompleteReadError)):
                    await asyncio.wait_for(reader.readexactly(64), 10)
                writer.close()

    run(work())


def ports() -> set[int]:
    """At which this process and all below it listen."""
    tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [socket for process in tree for socket in process.net_connections("tcp")]
    return {socket.laddr.port for socket in sockets if socket.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("first", [b"", b"not TLS"], ids=["closed", "not encrypted"])
def test_scheduler__that_ends_a_connection_before_it_is_encrypted_does_not_answer(tmp_path: Path, first: bytes) -> None:
    """As one does that is just being killed."""
    taken: list[socket.socket] = []

    def end_each(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                taken.append(listener.accept()[0])
                taken[-1].sendall(first)
                taken[-1].shutdown(socket.SHUT_WR)

    async def dawdle() -> None:
        while True:
            time.sleep(0.02)  # noqa: ASYNC251 - so that the loop sees the end as soon as the connection
            await asyncio.sleep(0)

    async def work(listener: socket.socket) -> None:
        async with local_cluster(tmp_path) as cluster:
            known, scheduler = await cluster.workers(), cluster._rpc
            # A private attribute: a cluster whose scheduler is killed would be replaced as a whole.
            address = f"tls://127.0.0.1:{listener.getsockname()[1]}"
            cluster._rpc = rpc(address, connection_args=cluster.security.get_connection_args("client"))
            dawdling = asyncio.create_task(dawdle())
            try:
                assert await cluster.workers() == known
                with pytest.raises(ModelServerError, match=r"scheduler .* does not answer: ConnectionError\."):
                    await DaskCluster.connect(address, cluster.security)
            finally:
                dawdling.cancel()
                await cluster._rpc.close_rpc()
                cluster._rpc = scheduler

    with socket.create_server(("127.0.0.1", 0)) as listener:
        ending = threading.Thread(target=end_each, args=(listener,), daemon=True)
        ending.start()
        run(work(listener))
        listener.shutdown(socket.SHUT_RDWR)
        ending.join()
    for one in taken:
        one.close()


def test_cluster__listens_at_one_port_a_process_and_has_no_dashboard(tmp_path: Path) -> None:
    async def work() -> None:
        before = ports()
        async with local_cluster(tmp_path) as cluster:
            own = {int(one.rpartition(":")[2]) for one in (cluster.address, *await cluster.workers())}
            assert ports() - before == own and len(own) == 2
            async with Client(cluster.address, security=cluster.security, asynchronous=True) as client:
                assert not client.dashboard_link

    run(work())


def test_worker__does_its_work_and_shows_its_key_to_nobody(tmp_path: Path) -> None:
    async def work() -> None:
        async with local_cluster(tmp_path) as cluster:
            (worker,) = await cluster.workers()
            assert (await cluster.ask(worker, os.getenv, "PYTHONPATH")) == str(ROOT)
            assert [await cluster.ask(worker, os.getenv, name) for name in (CERTIFICATE, KEY)] == [None, None]
            for pid in below(os.getpid()):
                assert b"PRIVATE KEY" not in Path(f"/proc/{pid}/environ").read_bytes()
                assert b"PRIVATE KEY" not in Path(f"/proc/{pid}/cmdline").read_bytes()
            found = [path for path in tmp_path.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
            assert found == []

    run(work())


def test_scheduler__of_pods_answers_the_kubelet_and_the_operator_and_nothing_else(tmp_path: Path) -> None:
    port, http = free_port(), free_port()
    command = [
        *(
            sys.executable,
            "-m",
            "tasks.clients.cluster.dask_process",
            "dask_scheduler",
            "--protocol",
            "tls",
            "--no-dashboard",
        ),
        *("--host", "127.0.0.1", "--port", str(port), "--dashboard-address", f"127.0.0.1:{http}"),
    ]
    refused_without = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused_without.returncode == 1 and "there is none" in refused_without.stderr
    identity = made_identity()
    environment = {**os.environ, **identity.variables()}
    process = processes.start(command, tmp_path / "log", environment | {"PYTHONPATH": str(ROOT)})
    try:

        def status(path: str) -> int:
            with suppress(requests.ConnectionError):
                return requests.get(f"http://127.0.0.1:{http}{path}", timeout=10).status_code
            return 0

        wait_for(lambda: status("/health") == 200)
        assert status("/api/v1/check_idle") == 200
        for path in (
            "/status", "/info/main/workers.html", "/json/counts.json", "/metrics", "/api/v1", "/api/v1/retire_workers",
            "/proxy/1/127.0.0.1/", "/statics/css/base.css", "/individual-plots.json",
        ):  # fmt: skip
            assert status(path) == 404, path
        assert run(refused(f"tcp://127.0.0.1:{port}", None))
        assert not run(refused(f"tls://127.0.0.1:{port}", security_of(identity)))
    finally:
        processes.stop(process)


def test_identity__is_of_this_run_only_and_not_shown() -> None:
    one, other = made_identity(), made_identity()
    assert one.key != other.key and one.certificate != other.certificate
    assert "PRIVATE" not in repr(one)
    assert "PRIVATE" not in repr(security_of(one))


def test_scheduler__that_exists_is_talked_to_with_the_pools_certificates(tmp_path: Path) -> None:
    async def work() -> None:
        from tasks.clients.cluster.dask_process import ClosedScheduler

        identity = made_identity()
        scheduler = await ClosedScheduler(
            host="127.0.0.1", port=0, protocol="tls", security=security_of(identity), dashboard=False
        )
        try:
            where = Cluster(kind="scheduler", address=scheduler.address, **pem_files(tmp_path / "pem", identity))
            cluster = await start_cluster(where, 2, 1, tmp_path, {})
            assert await cluster.workers() == []
            await cluster.close()
        finally:
            await scheduler.close()

    run(work())


def test_scheduler__without_usable_certificates_is_refused_in_one_line(tmp_path: Path) -> None:
    address = f"tls://127.0.0.1:{free_port()}"
    files = {"ca_file": "/no/ca.pem", "certificate_file": "/no/c.pem", "key_file": "/no/k.pem"}
    for where, said in (
        (Cluster(kind="scheduler", address=address), "there are none: state ca_file"),
        (Cluster(kind="scheduler", address=address, **files), "cannot be used (FileNotFoundError"),
    ):
        with pytest.raises(ModelServerError) as refusal:
            run(start_cluster(where, 2, 1, tmp_path, {}))
        assert said in str(refusal.value) and "\n" not in str(refusal.value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
