"""A warden that is killed with signal 9: what its command has started is gone, too, when the end is told."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from clients.support import FAKE_MODEL_SERVER, alive, run
from fakes.processes import DEADLINE_SECONDS

from tasks.clients.instances import launcher
from tasks.clients.instances.launcher import Server
from tasks.clients.processes.lifeline import GuardedProcess
from tasks.domain.instance import Launch
from tasks.domain.package import Health, PackageConfig

NOTE = "import os,signal,sys,time; print(sys.argv[1], os.getpid(), flush=True); {more}time.sleep(600)"


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A package whose run.sh starts the server as a child of sh; whatever is left of it is killed at the end."""
    home = tmp_path / "package"
    home.mkdir()
    (home / "run.sh").write_text(f"{sys.executable} {FAKE_MODEL_SERVER}\necho the server has ended\n")
    yield home
    for pid in below(home):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def below(folder: Path) -> list[int]:
    """Processes that run and whose working directory is the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "cwd") == str(folder) and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def session_of(session: int) -> list[int]:
    """Processes that run in this session."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


@pytest.mark.parametrize("round_", range(3))
def test_warden__killed_leaves_no_server_that_is_a_child_of_sh(package: Path, round_: int) -> None:
    async def work() -> None:
        launch = await launcher.prepare(
            "boot-file", PackageConfig.model_validate({"model_type": "Image"}), package, "name", {}, package / "cache"
        )
        server = await Server.start(launch, package / "log")
        await server.ready(Health(period_seconds=0.5))
        warden = server._process.pid
        (shell,) = map(int, Path(f"/proc/{warden}/task/{warden}/children").read_text().split())
        there = session_of(shell)
        assert len(there) == 2 and shell in there  # sh and the server itself
        os.kill(warden, signal.SIGKILL)
        assert await server.ended() == 137
        assert session_of(shell) == []
        assert below(package) == []
        assert not server.running
        await server.stop()

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))


@pytest.mark.parametrize("also", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN); ", "os.setpgid(0, 0); "])
def test_warden__killed_takes_along_every_process_of_the_session(package: Path, also: str) -> None:
    """Also one that ignores SIGTERM, and one in a process group of its own (a job of a shell, say)."""
    code = shlex.quote(NOTE.format(more=also))
    first = shlex.quote(NOTE.format(more=""))
    (package / "run.sh").write_text(
        f"{sys.executable} -c {first} first &\n{sys.executable} -c {code} second &\nwait\nwait\n"
    )

    async def work() -> None:
        environment = {"PATH": os.environ["PATH"]}
        log = package / "log"
        process = await GuardedProcess.start(["sh", "run.sh"], folder=package, environment=environment, log=log)
        while len(said := log.read_text().split() if log.exists() else []) < 4:
            await asyncio.sleep(0.01)
        noted = [int(said[1]), int(said[3])]
        session = os.getsid(noted[0])
        assert session == os.getsid(noted[1]) and len(session_of(session)) == 3
        os.kill(process.pid, signal.SIGKILL)
        await process.ended()
        assert [pid for pid in noted if alive(pid)] == []
        assert session_of(session) == []
        await process.stop()

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))


@pytest.mark.usefixtures("patient_warden")
def test_warden__killed_while_it_is_being_stopped_leaves_nothing(package: Path) -> None:
    code = shlex.quote(NOTE.format(more="signal.signal(signal.SIGTERM, signal.SIG_IGN); "))
    (package / "run.sh").write_text(f"{sys.executable} -c {code} stubborn\necho over\n")
    # It ignores SIGTERM only once it has noted itself: wait for what stands in /proc.

    def ignores(pid: int) -> bool:
        line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("SigIgn"))
        return bool(int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1))

    async def work() -> None:
        log = package / "log"
        process = await GuardedProcess.start(
            ["sh", "run.sh"], folder=package, environment={"PATH": os.environ["PATH"]}, log=log
        )
        while not (said := log.read_text().split() if log.exists() else []):
            await asyncio.sleep(0.01)
        stubborn = int(said[1])
        session = os.getsid(stubborn)
        while not ignores(stubborn):
            await asyncio.sleep(0.01)
        stopping = asyncio.ensure_future(process.stop())
        while session_of(session) != [stubborn]:  # sh has obeyed, the warden waits for the other
            await asyncio.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        await stopping
        assert not alive(stubborn)
        assert below(package) == []

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))


def test_launch__with_another_folder_is_not_touched_by_a_killed_warden(package: Path, tmp_path: Path) -> None:
    """Two instances: only that one ends whose warden was killed."""

    async def work() -> None:
        launch = Launch(("sh", "run.sh"), package, {"PATH": os.environ["PATH"]})
        one, other = [await Server.start(launch, tmp_path / f"log-{number}") for number in range(2)]
        for server in (one, other):
            await server.ready(Health(period_seconds=0.5))
        os.kill(one._process.pid, signal.SIGKILL)
        await one.ended()
        assert len(below(package)) == 3  # the other warden, its sh and its server
        assert other.running
        await other.ready(Health(period_seconds=0.5))
        await other.stop()
        assert below(package) == []

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))
