"""What processes use, and what the log is told: limits.py."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.support import pids, wait_for
from fakes.processes import start, stop

from tasks.clients.processes.control_groups import Group
from tasks.clients.processes.limits import LOOK_SECONDS, ProcessBounds, amount, tree, used_bytes

MIB = 1024**2
FAMILY = """
import os, sys, time
held = b'x' * (int(sys.argv[1]) << 20)
for number in range(3):
    if os.fork() == 0:
        if number == 2 and os.fork():
            time.sleep(600)
        print(f"child-{number}", os.getpid(), flush=True)
        time.sleep(600)
print("parent", os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def family(tmp_path: Path) -> Iterator[dict[str, int]]:
    """A process with 100 MiB, two children and a grandchild that share them, and the child between (not named)."""
    log = tmp_path / "log"
    process = start([sys.executable, "-I", "-S", "-c", FAMILY, "100"], log, os.environ)
    wait_for(lambda: len(pids(log)) == 4)
    found = pids(log)
    below = tree(process.pid)
    yield found
    for pid in below:
        os.kill(pid, signal.SIGKILL)
    stop(process)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 MiB"), (1, "0 MiB"), (150 * MIB, "150 MiB"), (2048 * MIB, "2 GiB"), (2355 * MIB, "2.3 GiB")],
)
def test_amount__is_for_people(size: int, text: str) -> None:
    assert amount(size) == text


def test_tree__is_every_process_below(family: dict[str, int]) -> None:
    found = tree(family["parent"])
    assert {pid for name, pid in family.items() if name != "parent"} < found
    assert len(found) == 4
    assert tree(max(found)) <= found


def test_tree__of_a_process_that_has_ended_is_empty() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert tree(process.pid) == set()


def test_used_bytes__counts_what_processes_share_once(family: dict[str, int]) -> None:
    everybody = {family["parent"], *tree(family["parent"])}
    assert 100 * MIB < used_bytes(everybody, enough=150 * MIB) < 150 * MIB
    assert used_bytes(everybody, enough=2**40) > 400 * MIB  # far below the limit, the cheaper answer will do


def test_used_bytes__does_not_count_pages_of_files(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"x" * (64 * MIB))
    code = (
        "import mmap, os, sys, time\n"
        "held = mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, prot=mmap.PROT_READ)\n"
        "print('read', sum(held[at] for at in range(0, len(held), 4096)), flush=True)\n"
        "time.sleep(600)"
    )
    process = start([sys.executable, "-I", "-S", "-c", code, str(tmp_path / "weights")], tmp_path / "log", os.environ)
    try:
        wait_for(lambda: pids(tmp_path / "log"))
        assert 0 < used_bytes([process.pid], enough=0) < 32 * MIB
    finally:
        stop(process)


def test_used_bytes__of_a_process_that_has_ended_is_nothing() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert used_bytes([process.pid], enough=0) == 0


def test_bounds__say_once_that_the_memory_was_exceeded_on_a_line_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("half a line")
    bounds = ProcessBounds(MIB, None, str(log))
    assert bounds.exceeded([os.getpid()])
    bounds.ended(-signal.SIGKILL)
    first, second = log.read_text().splitlines()
    assert first == "half a line"
    assert second.endswith(" of 1 MiB) and was ended")


def test_bounds__look_more_often_the_closer_the_limit_is(tmp_path: Path) -> None:
    shortest, longest = LOOK_SECONDS
    near, far = (
        ProcessBounds(50 * 2**30, None, ""),
        ProcessBounds(used_bytes([os.getpid()], enough=2**40) + 64 * MIB, None, ""),
    )
    assert near.seconds_to_next_look() == far.seconds_to_next_look() == 0
    assert not near.exceeded([os.getpid()]) and not far.exceeded([os.getpid()])
    assert (far.seconds_to_next_look() or 0) <= shortest < (near.seconds_to_next_look() or 0) <= longest


def test_bounds__without_memory_never_look(tmp_path: Path) -> None:
    bounds = ProcessBounds(None, 1.0, str(tmp_path / "log"))
    assert bounds.seconds_to_next_look() is None
    assert not bounds.exceeded([os.getpid()])
    bounds.ended(1)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 GiB", True),
        ("terminate called after throwing an instance of 'std::bad_alloc'", True),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", True),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory.", False),
        ("KeyError: 'image'", False),
    ],
)
def test_bounds__explain_an_end_for_want_of_memory_only(tmp_path: Path, printed: str, told: bool) -> None:
    log = tmp_path / "log"
    log.write_text(f"{printed}\n")
    ProcessBounds(64 * 2**30, None, str(log)).ended(1)
    line = "thresher: the model server asked for more memory than its flavor allows (64 GiB)\n"
    assert log.read_text() == f"{printed}\n{line if told else ''}"


def test_bounds__do_not_explain_an_end_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("MemoryError\n")
    ProcessBounds(64 * 2**30, None, str(log)).ended(0)
    assert log.read_text() == "MemoryError\n"


@pytest.mark.parametrize(("kills", "told"), [(0, False), (2, True)])
def test_bounds__tell_of_what_the_kernel_has_ended(tmp_path: Path, kills: int, told: bool) -> None:
    (tmp_path / "memory.events").write_text(f"low 0\nhigh 0\nmax 812\noom {kills}\noom_kill {kills}\n")
    bounds = ProcessBounds(2 * 2**30, 1.0, str(tmp_path / "log"))
    bounds.group = Group(str(tmp_path))
    assert bounds.seconds_to_next_look() is None
    bounds.ended(-signal.SIGKILL)
    line = "thresher: the model server used more memory than its flavor allows (2 GiB) and was ended\n"
    assert ((tmp_path / "log").exists() and (tmp_path / "log").read_text() == line) == told


def test_bounds__keep_a_lower_limit_that_the_administrator_has_set(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (512 * MIB, 512 * MIB))
        bounds = ProcessBounds(MIB * 600, None, str(tmp_path / "log"))
        bounds.apply(process.pid)
        assert resource.prlimit(process.pid, resource.RLIMIT_DATA) == (512 * MIB, 512 * MIB)
        process.kill()
        process.wait()
        bounds.remove()
