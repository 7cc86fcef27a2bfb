"""No process outlives whoever started it, and the command's end is told: warden.py and lifeline.py."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.process_tree import TREE
from clients.support import ROOT, alive, pids, run, wait_for
from fakes.processes import DEADLINE_SECONDS

from tasks.clients.processes.lifeline import GuardedProcess

OWNER = """
import asyncio, os, signal, sys
from pathlib import Path
from tasks.clients.processes.lifeline import GuardedProcess

async def main():
    signal.signal(signal.SIGINT, lambda *_: os.write(1, b"owner was interrupted\\n"))
    folder = Path(sys.argv[1])
    scratch = folder / "scratch"
    (scratch / "below").mkdir(parents=True)
    (scratch / "below" / "file").write_text("x")
    process = await GuardedProcess.start(
        [sys.executable, "-c", *sys.argv[2:]], folder=folder, environment=os.environ, log=folder / "log",
        scratch=scratch,
    )
    print("warden", process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def start(folder: Path, *kinds: str, code: str = TREE) -> GuardedProcess:
    command = [sys.executable, "-I", "-S", "-c", code, *kinds]
    return await GuardedProcess.start(command, folder=folder, environment={"MARK": "x"}, log=folder / "log")


async def noted(folder: Path, *names: str) -> dict[str, int]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not set(names) <= set(pids(folder / "log")):
            await asyncio.sleep(0.01)
    return pids(folder / "log")


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Started owners; what is left of them is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def start_owner(started: list[subprocess.Popen[bytes]], folder: Path, *kinds: str) -> tuple[int, dict[str, int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), TREE, *kinds],
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    started.append(process)
    assert process.stdout
    warden = int(process.stdout.readline().split()[1])
    names = ["command" if name == "stay" else name for name in kinds if name != "stubborn-command"]
    wait_for(lambda: set(names) <= set(pids(folder / "log")))
    return warden, pids(folder / "log")


@pytest.mark.parametrize("kind", ["child", "setsid", "daemon"])
def test_stop__leaves_no_process(tmp_path: Path, kind: str) -> None:
    async def work() -> None:
        process = await start(tmp_path, kind, "stay")
        found = await noted(tmp_path, kind, "command")
        assert process.running
        assert all(alive(pid) for pid in found.values())
        await process.stop()
        assert not process.running
        assert [name for name, pid in found.items() if alive(pid)] == []
        assert not alive(process.pid)

    run(work())


@pytest.mark.slow
def test_stop__ends_processes_that_ignore_sigterm(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, "stubborn-command", "stubborn", "stay")
        found = await noted(tmp_path, "stubborn", "command")
        await process.stop()
        assert [name for name, pid in found.items() if alive(pid)] == []

    run(work())


def test_stop__can_be_called_twice_and_after_the_end(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, "exit0")
        assert await process.ended() == 0
        await process.stop()
        await process.stop()

    run(work())


def test_stop__gives_the_command_time_to_end_in_order(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(*_): print('ended in order'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('ready 1', flush=True)\n"
        "time.sleep(600)"
    )

    async def work() -> None:
        process = await start(tmp_path, code=code)
        await noted(tmp_path, "ready")
        await process.stop()
        assert "ended in order" in (tmp_path / "log").read_text()

    run(work())


@pytest.mark.parametrize(("kind", "status"), [("exit0", 0), ("exit7", 7)])
def test_ended__tells_the_exit_status(tmp_path: Path, kind: str, status: int) -> None:
    async def work() -> None:
        process = await start(tmp_path, kind)
        assert await process.ended() == status
        assert not process.running

    run(work())


def test_ended__tells_the_signal_that_ended_the_command(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, "stay")
        os.kill((await noted(tmp_path, "command"))["command"], signal.SIGKILL)
        assert await process.ended() == 128 + signal.SIGKILL

    run(work())


def test_ended__says_127_for_a_command_that_does_not_exist(tmp_path: Path) -> None:
    async def work() -> None:
        process = await GuardedProcess.start(["/no/such"], folder=tmp_path, environment={}, log=tmp_path / "log")
        assert await process.ended() == 127

    run(work())
    assert "cannot run /no/such: No such file" in (tmp_path / "log").read_text()


@pytest.mark.usefixtures("patient_warden")
def test_command_ended__is_seen_at_once_although_a_grandchild_lingers(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, "stubborn", "exit3")
        found = await noted(tmp_path, "stubborn", "command")
        await asyncio.wait_for(process.command_ended(), DEADLINE_SECONDS)
        assert not process.running
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.ended(), 0.2)
        assert alive(found["stubborn"])
        os.kill(found["stubborn"], signal.SIGKILL)
        assert await process.ended() == 3

    run(work())


@pytest.mark.slow
def test_ended__is_told_once_a_grandchild_that_lingers_is_gone(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, "stubborn", "exit3")
        found = await noted(tmp_path, "stubborn", "command")
        assert await process.ended() == 3
        assert not alive(found["stubborn"])

    run(work())


def test_command_ended__can_be_given_up_and_asked_again(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, "stay")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.command_ended(), 0.05)
        assert process.running
        os.kill((await noted(tmp_path, "command"))["command"], signal.SIGKILL)
        await process.command_ended()
        await process.stop()

    run(work())


@pytest.mark.parametrize("turns", range(6))
def test_stop__of_a_process_that_has_ended_can_be_cancelled_at_any_moment(tmp_path: Path, turns: int) -> None:
    async def work() -> bool:
        process = await start(tmp_path, "exit3")
        await process.ended()

        async def keep() -> None:
            await process.stop()
            await asyncio.Event().wait()

        keeper = asyncio.create_task(keep())
        for _ in range(turns):
            await asyncio.sleep(0)
        keeper.cancel()
        await asyncio.wait([keeper], timeout=DEADLINE_SECONDS)
        return keeper.cancelled()

    assert run(work())


def test_warden__leaves_no_log_and_no_scratch_folder_when_its_owner_is_killed(
    tmp_path: Path, owner: list[subprocess.Popen[bytes]]
) -> None:
    folder = tmp_path / "instances"
    folder.mkdir()
    start_owner(owner, folder, "stay")
    owner[0].kill()
    wait_for(lambda: not folder.exists())
    assert tmp_path.exists()


def test_guarded_process__writes_both_outputs_to_the_log_behind_what_stands_there(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("earlier\n")

    async def work() -> None:
        process = await start(tmp_path, code="import os; os.write(1, b'out\\n'); os.write(2, b'err\\n')")
        await process.ended()

    run(work())
    assert (tmp_path / "log").read_text() == "earlier\nout\nerr\n"


def test_guarded_process__has_exactly_the_given_environment_folder_and_no_input(tmp_path: Path) -> None:
    code = "import os, sys; print(sorted(os.environ), os.getcwd(), sys.stdin.read() == '')"

    async def work() -> None:
        process = await start(tmp_path, code=code)
        await process.ended()

    run(work())
    said = (tmp_path / "log").read_text()
    assert "'MARK'" in said
    assert "PATH" not in said
    assert said.rstrip().endswith(f"{tmp_path} True")


def test_guarded_process__does_not_hold_the_pipes_of_its_owner_open(tmp_path: Path) -> None:
    """Prefect marks a killed run Crashed only when nothing holds the run's standard output any more."""
    code = "import os; print(sorted(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')))"

    async def work() -> None:
        process = await start(tmp_path, code=code)
        await process.ended()

    run(work())
    assert "pipe:" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("kinds", [("child", "setsid", "daemon", "stay"), ("stay",)])
def test_warden__ends_all_when_its_owner_is_killed(
    tmp_path: Path, owner: list[subprocess.Popen[bytes]], kinds: tuple[str, ...]
) -> None:
    warden, found = start_owner(owner, tmp_path, *kinds)
    owner[0].kill()
    wait_for(lambda: not any(alive(pid) for pid in [warden, *found.values()]))


@pytest.mark.slow
def test_warden__ends_stubborn_processes_when_its_owner_is_killed(
    tmp_path: Path, owner: list[subprocess.Popen[bytes]]
) -> None:
    warden, found = start_owner(owner, tmp_path, "stubborn-command", "stubborn", "stay")
    owner[0].kill()
    wait_for(lambda: not any(alive(pid) for pid in [warden, *found.values()]))


def test_warden__killed_takes_the_command_along(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, "stay")
        found = await noted(tmp_path, "command")
        os.kill(process.pid, signal.SIGKILL)
        await process.command_ended()
        assert not process.running
        wait_for(lambda: not alive(found["command"]))
        await process.stop()

    run(work())


def test_warden__is_not_ended_by_signals_that_are_meant_for_others(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, "stay")
        found = await noted(tmp_path, "command")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(process.pid, number)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.command_ended(), 0.2)
        assert alive(found["command"])
        await process.stop()

    run(work())


def test_ctrl_c__to_the_group_of_the_terminal_does_not_hit_the_command(tmp_path: Path) -> None:
    master, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), TREE, "stay"],
        preexec_fn=lambda: os.login_tty(terminal),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    os.close(terminal)
    try:
        said = b""
        while b"warden" not in said:
            said += os.read(master, 1000)
        command = wait_for(lambda: pids(tmp_path / "log").get("command"))
        os.write(master, b"\x03")
        while b"owner was interrupted" not in said:
            said += os.read(master, 1000)
        assert alive(command)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    wait_for(lambda: not alive(command))
