"""What runs under a warden reaches nothing of the processes outside, and nothing of it stays: confinement.py."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clients.support import ROOT, alive, pids, run, wait_for

from tasks.clients.processes import confinement
from tasks.clients.processes.lifeline import GuardedProcess
from tasks.domain.instance import handed_on

CONFINE = "from tasks.clients.processes.confinement import confine; raise SystemExit(not confine())"
confined_here = pytest.mark.skipif(
    subprocess.run(
        [sys.executable, "-c", CONFINE],
        cwd=ROOT, check=False,
    ).returncode != 0,
    reason="this kernel has no Landlock",
)  # fmt: skip
LOOK = """
import glob, json, os, sys
def tried(what):
    try:
        return bool(what()) or True
    except OSError as error:
        return type(error).__name__
outside = int(sys.argv[1])
child = os.fork()
if not child:
    import time
    time.sleep(60)
print(json.dumps({
    "environ": tried(lambda: open(f"/proc/{outside}/environ", "rb").read()),
    "memory": tried(lambda: open(f"/proc/{outside}/mem", "rb")),
    "files": tried(lambda: os.listdir(f"/proc/{outside}/fd") and os.readlink(f"/proc/{outside}/cwd")),
    "warden": tried(lambda: open(f"/proc/{os.getppid()}/environ", "rb").read()),
    "signal": tried(lambda: os.kill(outside, 0)),
    "own child": tried(lambda: open(f"/proc/{child}/environ", "rb").read()),
    "own signal": tried(lambda: os.kill(child, 9)),
    "own environment": sorted(os.environ),
}))
"""


@contextmanager
def holder() -> Iterator[int]:
    """A process outside that holds a key; its memory is not hidden."""
    process = subprocess.Popen(["sleep", "600"], env={"AWS_SECRET_ACCESS_KEY": "hidden"})
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def seen(folder: Path, *command: str) -> dict[str, object]:
    async def work() -> None:
        process = await GuardedProcess.start(command, folder=folder, environment={"MARK": "x"}, log=folder / "log")
        assert await process.ended() == 0, (folder / "log").read_text()

    run(work())
    found: dict[str, object] = json.loads((folder / "log").read_text())
    return found


@confined_here
def test_command__reads_nothing_of_a_process_outside_and_sends_it_no_signal(tmp_path: Path) -> None:
    with holder() as outside:
        found = seen(tmp_path, sys.executable, "-I", "-S", "-c", LOOK, str(outside))
        assert alive(outside)
    assert {name: found[name] for name in ("environ", "memory", "files", "warden")} == dict.fromkeys(
        ("environ", "memory", "files", "warden"), "PermissionError"
    )
    assert found["signal"] == "PermissionError" or not signals_are_closed()
    assert (found["own child"], found["own signal"]) == (True, True)
    assert "AWS_SECRET_ACCESS_KEY" not in str(found["own environment"]) and "MARK" in str(found["own environment"])


def signals_are_closed() -> bool:
    """Whether this kernel closes them (Landlock's sixth version)."""
    call = "import ctypes; print(ctypes.CDLL(None).syscall(444, None, 0, 1))"
    return int(subprocess.run([sys.executable, "-c", call], capture_output=True, check=True).stdout) >= 6


OLD_KERNEL = """
import ctypes, os, sys
from tasks.clients.processes import confinement
libc = ctypes.CDLL(None)
for capability in confinement.LOOKING:
    libc.prctl(confinement.PR_CAPBSET_DROP, capability, 0, 0, 0)
assert confinement._restricted(libc, confinement._rules(libc.syscall, 2))
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2], sys.argv[1]])
"""
INSIDE = """
import os, sys
os.mkdir("one"); os.mkdir("two"); open("one/file", "w").close()
os.rename("one/file", "two/file"); os.link("two/file", "one/linked")
try:
    open(f"/proc/{sys.argv[1]}/environ", "rb").read()
except PermissionError:
    print("closed")
"""


@confined_here
def test_confine__of_an_older_kernel_closes_processes_and_no_file(tmp_path: Path) -> None:
    with holder() as outside:
        done = subprocess.run(
            [sys.executable, "-c", OLD_KERNEL, str(outside), INSIDE], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("closed", "")


def test_warden__is_started_with_nothing_that_the_command_is_given(tmp_path: Path) -> None:
    async def work() -> None:
        given = {"AWS_SECRET_ACCESS_KEY": "hidden", "LANG": "C.UTF-8"}
        process = await GuardedProcess.start(["sleep", "600"], folder=tmp_path, environment=given, log=tmp_path / "log")
        line = Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"hidden" not in line and b"LANG=C.UTF-8" in line
        await process.stop()

    run(work())


def test_environment__of_any_size_reaches_the_command(tmp_path: Path) -> None:
    given = {f"NAME_{number}": "x" * 1000 for number in range(500)} | {
        "LINES": "a\nb=c",
        "EMPTY": "",
        "BYTES": "\udcff",
    }
    code = "import json, os; print(json.dumps(dict(os.environ)))"

    async def work() -> None:
        log = tmp_path / "log"
        process = await GuardedProcess.start(
            [sys.executable, "-I", "-c", code], folder=tmp_path, environment=given, log=log
        )
        assert await process.ended() == 0
        assert given.items() <= json.loads(log.read_text()).items()

    run(work())


OWN = """
import json, os, sys, time
print(json.dumps({"environment": dict(os.environ), "arguments": sys.argv[1:], "input": sys.stdin.read()}), flush=True)
time.sleep(600)
"""


def test_own_module__gets_its_environment_where_nobody_else_reads_it(tmp_path: Path) -> None:
    (tmp_path / "own_module.py").write_text(OWN)
    given = {"PYTHONPATH": str(tmp_path), "PREFECT_API_AUTH_STRING": "hid=den\n", "PATH": os.environ["PATH"]}

    async def work() -> None:
        log = tmp_path / "log"
        process = await GuardedProcess.start_own("own_module", ["a", "b"], folder=tmp_path, environment=given, log=log)
        while not (said := log.read_text() if log.exists() else "").endswith("\n"):
            await asyncio.sleep(0.01)
        found = json.loads(said)
        assert (found["arguments"], found["input"]) == (["a", "b"], "")
        assert given.items() <= found["environment"].items()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (process.pid, *map(int, children)):
            assert b"hid=den" not in Path(f"/proc/{pid}/environ").read_bytes()
        await process.stop()

    run(work())


ESCAPES = """
import os, signal, sys, time
for name in ("session", "cleared"):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.closerange(0, 1)
        if name == "cleared":
            os.execve(sys.executable, [sys.executable, "-c", sys.argv[1]], {})
        print(name, os.getpid(), flush=True)
        time.sleep(600)
time.sleep(600)
"""
CLEARED = """
import os, time
print("cleared", os.getpid(), flush=True)
os.dup2(os.open(os.devnull, os.O_RDWR), 1)
os.dup2(1, 2)
time.sleep(600)
"""


def test_warden__killed_leaves_no_process_in_a_session_of_its_own(tmp_path: Path) -> None:
    async def work() -> None:
        log = tmp_path / "log"
        command = [sys.executable, "-c", ESCAPES, CLEARED]
        one, other = [
            await GuardedProcess.start(command, folder=tmp_path, environment=handed_on(os.environ), log=path)
            for path in (log, tmp_path / "other")
        ]
        while len(pids(log)) < 2 or len(pids(tmp_path / "other")) < 2:
            await asyncio.sleep(0.01)
        os.kill(one.pid, signal.SIGKILL)
        assert await one.ended() == 137
        assert [pid for pid in pids(log).values() if alive(pid)] == []
        assert all(map(alive, pids(tmp_path / "other").values()))  # another one's are not touched
        await one.stop()
        await other.stop()

    run(work())


OWNER = """
import asyncio, os, sys
from pathlib import Path
from tasks.clients.processes.lifeline import GuardedProcess

async def main():
    scratch = Path(sys.argv[1])
    process = await GuardedProcess.start_own(
        "own_module", [], folder=scratch, environment={**os.environ}, log=scratch / "log", scratch=scratch)
    await process.command_ended() if sys.argv[2] == "command first" else None
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("order", ["owner first", "command first"])
def test_scratch__is_removed_in_either_order_of_deaths(tmp_path: Path, order: str) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "raw output").write_text("unmasked")
    (tmp_path / "own_module.py").write_text("" if order == "command first" else "import time\ntime.sleep(600)")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(scratch), order], stdout=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )  # fmt: skip
    try:
        assert owner.stdout is not None and owner.stdout.readline() == b"ready\n"
        assert (scratch / "raw output").exists()
    finally:
        owner.kill()
        owner.communicate()
    wait_for(lambda: not scratch.exists())


def test_mark__is_no_limit() -> None:
    code = (
        "import resource, sys; from tasks.clients.processes.confinement import has_mark, mark; import os; mark(12345);"
        "import fcntl, tempfile; files = [tempfile.TemporaryFile() for _ in range(50)];"
        "[fcntl.lockf(one, fcntl.LOCK_EX) for one in files]; sys.exit(not has_mark(os.getpid(), 12345))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    assert not confinement.has_mark(os.getpid(), 12345)
