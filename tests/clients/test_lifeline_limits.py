"""A command and all that it starts are held to their limits, and the log says so when they exceed them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from clients.support import ROOT, alive, pids, run, wait_for
from fakes.processes import DEADLINE_SECONDS

from tasks.clients.processes import lifeline
from tasks.clients.processes.control_groups import Group, own_group
from tasks.clients.processes.lifeline import GuardedProcess
from tasks.domain.instance import Limits, instance_environment

MIB = 1024**2
GREEDY = "import time\nprint('begins', flush=True)\nheld = b'x' * (300 << 20)\ntime.sleep(600)"
MODEST = "import os, time\nheld = b'x' * (40 << 20)\nprint('modest', os.getpid(), flush=True)\ntime.sleep(600)"
TREE = """
import os, sys, time
for number in range(4):
    if os.fork() == 0:
        os.setsid()
        held = b'x' * (60 << 20)
        print(f"child-{number}", os.getpid(), flush=True)
        time.sleep(600)
time.sleep(600)
"""
IN_A_GROUP = f"""
import sys
sys.path.append({str(ROOT)!r})
from tasks.clients.processes import limits, warden
from tasks.clients.processes.control_groups import Group, own_group

limits.make_group = lambda memory_bytes, cpu: Group.below(own_group())
sys.exit(warden.main(sys.argv[1:]))
"""
"""A warden that uses a control group also where memory cannot be limited by one."""


async def start(folder: Path, code: str, memory_mib: int, log: str = "log") -> GuardedProcess:
    command = [sys.executable, "-I", "-S", "-c", code]
    limits = Limits(cpu=1, memory_bytes=memory_mib * MIB)
    return await GuardedProcess.start(command, folder=folder, environment={}, log=folder / log, limits=limits)


def test_limits__end_a_command_that_uses_more_memory_and_leave_a_modest_one_alone(tmp_path: Path) -> None:
    async def work() -> None:
        modest = await start(tmp_path, MODEST, 150, "modest")
        while not pids(tmp_path / "modest"):
            await asyncio.sleep(0.01)
        greedy = await start(tmp_path, GREEDY, 150)
        assert await greedy.ended() == 128 + signal.SIGKILL
        assert modest.running
        await modest.stop()

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))
    first, last = (tmp_path / "log").read_text().splitlines()
    assert first == "begins"
    assert last.startswith("thresher: the model server used more memory than its flavor allows (")
    assert last.endswith("150 MiB) and was ended")
    assert "thresher" not in (tmp_path / "modest").read_text()


def test_limits__are_told_in_the_log_before_the_end_of_the_command_is(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, GREEDY, 100)
        await process.command_ended()
        assert "was ended" in (tmp_path / "log").read_text()
        await process.stop()

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))


def test_limits__hold_for_all_processes_of_the_command_together(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, TREE, 200)
        assert await process.ended() == 128 + signal.SIGKILL

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))
    said = (tmp_path / "log").read_text()
    assert "200 MiB) and was ended" in said.splitlines()[-1]
    assert [pid for pid in pids(tmp_path / "log").values() if alive(pid)] == []


def test_limits__refuse_far_too_much_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, "held = b'x' * (8 << 30)", 100)
        assert await process.ended() != 0

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.startswith("thresher: the model server ")
    assert "memory than its flavor allows (100 MiB)" in last


def test_limits__do_not_change_how_a_command_ends_by_itself(tmp_path: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, "import sys; print('no newline', end=''); sys.exit(7)", 100)
        assert await process.ended() == 7

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))
    assert (tmp_path / "log").read_text() == "no newline"


def test_limits__say_127_for_a_command_that_does_not_exist(tmp_path: Path) -> None:
    async def work() -> None:
        process = await GuardedProcess.start(
            ["/no/such"], folder=tmp_path, environment={}, log=tmp_path / "log", limits=Limits(0.5, 100 * MIB)
        )
        assert await process.ended() == 127

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))
    assert (tmp_path / "log").read_text() == "cannot run /no/such: No such file or directory\n"


def test_limits__reach_the_libraries_of_the_command_as_thread_counts(tmp_path: Path) -> None:
    limits = Limits(cpu=2.5, memory_bytes=200 * MIB)
    environment = instance_environment({"OMP_NUM_THREADS": "64"}, {"MKL_NUM_THREADS": "1"}, limits)
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"

    async def work() -> None:
        process = await GuardedProcess.start(
            [sys.executable, "-I", "-S", "-c", code],
            folder=tmp_path, environment=environment, log=tmp_path / "log", limits=limits,
        )  # fmt: skip
        assert await process.ended() == 0

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))
    assert (tmp_path / "log").read_text() == "2 1\n"


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which wardens make their control groups; the test is skipped where they may not."""
    own = own_group()
    try:
        if own is None:
            raise OSError("no cgroup v2")
        Group.below(own).remove()
    except OSError as error:
        pytest.skip(f"no control group (cgroup v2) can be made on this machine: {error}")
    warden = tmp_path / "warden_in_a_group.py"
    warden.write_text(IN_A_GROUP)
    monkeypatch.setattr(lifeline, "WARDEN", warden)
    return Path(own)


async def started_in_a_group(folder: Path, groups: Path) -> tuple[GuardedProcess, dict[str, int], Path]:
    """A tree of processes, and the control group that the warden has made for it."""
    process = await start(folder, TREE, 8000)
    while len(found := pids(folder / "log")) < 4:
        await asyncio.sleep(0.01)
    (group,) = groups.glob(f"thresher-{process.pid}-*")
    return process, found, group


def test_warden__keeps_the_command_in_a_control_group_until_all_of_it_has_ended(tmp_path: Path, groups: Path) -> None:
    async def work() -> None:
        process, found, group = await started_in_a_group(tmp_path, groups)
        there = set(map(int, (group / "cgroup.procs").read_text().split()))
        assert set(found.values()) < there and process.pid not in there
        await process.stop()
        assert not group.exists()

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))


def test_warden__killed_leaves_no_control_group_and_nothing_that_was_in_it(tmp_path: Path, groups: Path) -> None:
    """Not even what has left the session of the command."""

    async def work() -> None:
        process, found, group = await started_in_a_group(tmp_path, groups)
        try:
            os.kill(process.pid, signal.SIGKILL)
            assert await process.ended() == 137
            assert not group.exists()
            wait_for(lambda: not any(alive(pid) for pid in found.values()))
        finally:
            for pid in found.values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))


def test_warden__removes_the_control_group_of_a_command_that_ended(tmp_path: Path, groups: Path) -> None:
    async def work() -> None:
        process = await start(tmp_path, "import sys; sys.exit(3)", 100)
        assert await process.ended() == 3
        assert list(groups.glob(f"thresher-{process.pid}-*")) == []

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))
