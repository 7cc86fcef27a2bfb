"""Ports for model servers: none is given twice, and whose one is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.support import FAKE_MODEL_SERVER, run, wait_for
from fakes.processes import DEADLINE_SECONDS, die_with_parent

from tasks.clients.instances import launcher
from tasks.clients.instances.launcher import Server
from tasks.clients.processes.lifeline import GuardedProcess
from tasks.clients.processes.ports import HOST, belongs_to_another, free_port
from tasks.domain.errors import ModelServerError
from tasks.domain.instance import Launch
from tasks.domain.package import Health

LISTENER = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""
HEALTHY = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def started(script: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that listens, and its port."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, preexec_fn=die_with_parent,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def later() -> Iterator[int]:
    """A process that is younger than what the test has started before, and listens nowhere."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def test_free_port__gives_none_twice() -> None:
    assert len({free_port() for _ in range(300)}) == 300


def test_port__of_the_process_itself_or_of_one_below_it_belongs_to_no_other() -> None:
    with started(LISTENER, "0") as (process, port):
        assert not belongs_to_another(port, process.pid)
        assert not belongs_to_another(port, os.getpid())


def test_port__on_which_an_older_process_listens_belongs_to_another() -> None:
    with (
        started(LISTENER, "0") as (_, port),
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as younger,
    ):
        try:
            assert belongs_to_another(port, younger.pid)
        finally:
            younger.kill()


def test_port__on_which_a_younger_process_listens_may_be_on_behalf_of_an_older_one(later: int) -> None:
    with started(LISTENER, "0") as (_, port):
        assert not belongs_to_another(port, later)


def test_port__of_a_younger_model_server_belongs_to_another(later: int, tmp_path: Path) -> None:
    async def work() -> None:
        command = [sys.executable, "-u", "-c", HEALTHY]
        environment = {"PATH": os.environ["PATH"]}
        log = tmp_path / "log"
        server = await GuardedProcess.start(command, folder=tmp_path, environment=environment, log=log)
        try:
            port = int(await asyncio.to_thread(wait_for, lambda: log.exists() and log.read_text().strip()))
            assert belongs_to_another(port, later)
            assert not belongs_to_another(port, server.pid)
        finally:
            await server.stop()

    run(work())


def test_port__on_which_anybody_listens_belongs_to_another_once_the_process_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    with started(LISTENER, "0") as (_, port):
        assert belongs_to_another(port, ended.pid)


def test_port__on_which_nobody_listens_belongs_to_no_other() -> None:
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        assert not belongs_to_another(bound.getsockname()[1], os.getpid())


def launch(folder: Path) -> Launch:
    return Launch((sys.executable, str(FAKE_MODEL_SERVER)), folder, {"PATH": os.environ["PATH"]})


def test_server__whose_port_was_taken_is_started_on_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(taken: int) -> str:
        ports = iter([taken])
        monkeypatch.setattr(launcher, "free_port", lambda: next(ports, None) or free_port())
        server = await Server.start(launch(tmp_path), tmp_path / "log")
        try:
            assert server.url.endswith(f":{taken}")
            await server.ready(Health(period_seconds=0.5))
            return server.url
        finally:
            await server.stop()

    with started(HEALTHY) as (_, port):
        assert not run(work(port)).endswith(f":{port}")


def test_server__whose_ports_are_all_taken_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    async def work(taken: int) -> None:
        def free_only_after_the_last_try() -> int:
            given.append(taken if len(given) < launcher.PORT_TRIES else free_port())
            return given[-1]

        monkeypatch.setattr(launcher, "free_port", free_only_after_the_last_try)
        server = await Server.start(launch(tmp_path), tmp_path / "log")
        try:
            await server.ready(Health(period_seconds=DEADLINE_SECONDS))
        finally:
            await server.stop()

    with started(HEALTHY) as (_, port), pytest.raises(ModelServerError, match="ended with status"):
        run(work(port))
    assert given == [port] * launcher.PORT_TRIES  # none is started that nobody would wait for
