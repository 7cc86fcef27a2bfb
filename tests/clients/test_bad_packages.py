"""Packages that misbehave while they are loaded: one clear reason, an end in time, and nothing left running."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from clients.support import alive, run

from tasks.clients.instances.launcher import Server
from tasks.clients.packages.environments import SERVING
from tasks.domain.errors import ModelServerError
from tasks.domain.instance import Launch, instance_environment, server_environment
from tasks.domain.package import Health

SERVICE = """
import ctypes, os, signal, sys, time
from model_service.pytorch_model_service import PTServingBaseService
{before}
class Service(PTServingBaseService):
    def __init__(self, model_name, model_path):
        {init}
    def _inference(self, data):
        return data
"""
QUICK = Health(period_seconds=0.1, failure_threshold=8)


def launch_of(tmp_path: Path, *, before: str = "", init: str = "pass") -> Launch:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "PyTorch"}')
    (folder / "customize_service.py").write_text(SERVICE.format(before=before, init=init))
    environment = instance_environment(server_environment({"PATH": "/usr/bin:/bin"}, {}), {}, None)
    return Launch((sys.executable, str(SERVING / "server.py")), folder, environment)


def outcome(launch: Launch, tmp_path: Path, health: Health = QUICK) -> str:
    """Why a package's server is not ready; empty if it is. Nothing of it is left afterwards."""

    async def work() -> str:
        server = await Server.start(launch, tmp_path / "log")
        try:
            await server.ready(health)
            return ""
        except ModelServerError as error:
            return str(error)
        finally:
            await server.stop()

    said = run(work())
    left = [int(word) for line in (tmp_path / "log").read_text().splitlines() for word in line.split("child ")[1:]]
    assert [pid for pid in left if alive(pid)] == []
    return said


@pytest.mark.parametrize("before", ["while True: time.sleep(1)", "while True: pass"])
def test_package__that_imports_for_ever_is_ended_at_its_time(tmp_path: Path, before: str) -> None:
    said = outcome(launch_of(tmp_path, before=before), tmp_path)
    assert said.startswith("The model server did not become healthy within 0.8 s")


@pytest.mark.parametrize(
    ("init", "status", "last"),
    [
        ("sys.exit(0)", "1", "failed: SystemExit: 0"),
        ("os._exit(0)", "0", ""),
        ("os._exit(7)", "7", ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", "137 (SIGKILL)", ""),
        ("ctypes.string_at(0)", "139 (SIGSEGV)", ""),
        ("self.__init__(model_name, model_path)", "1", "RecursionError: maximum recursion depth exceeded"),
        ("open('x', 'wb').write(b'x'); raise OSError(28, 'No space left on device')", "1", "No space left on device"),
    ],
)
def test_package__that_ends_in_init_says_how(tmp_path: Path, init: str, status: str, last: str) -> None:
    said = outcome(launch_of(tmp_path, init=init), tmp_path, Health())
    assert said.startswith(f"The model server ended with status {status}. It printed last:")
    assert last in said.splitlines()[-1]


FORKS = """
for number in range(3):
    held, ready = os.pipe()
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b"child %d\\n" % os.getpid())
        os.write(ready, b".")
        time.sleep(600)
        os._exit(0)
    os.read(held, 1)
"""


@pytest.mark.parametrize("then", ["", "os._exit(3)"])
def test_package__that_forks_leaves_no_child(tmp_path: Path, then: str) -> None:
    said = outcome(launch_of(tmp_path, before=FORKS + then), tmp_path, Health())
    assert (tmp_path / "log").read_text().count("child ") == 3
    assert said.startswith("The model server ended with status 3." if then else "")


@pytest.mark.parametrize("line", ["'x' * 1023 + '\\n'", "'x' * 1024"])
def test_package__that_prints_without_end_is_ready_and_keeps_a_small_log(tmp_path: Path, line: str) -> None:
    launch = launch_of(tmp_path, before=f"for number in range(64 << 10): sys.stdout.write({line})")
    assert outcome(launch, tmp_path, Health()) == ""
    assert (tmp_path / "log").stat().st_size < 32 << 20
