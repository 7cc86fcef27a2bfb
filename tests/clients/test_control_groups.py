"""Where control groups are made, what is written into them, and that they are removed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.clients.processes.control_groups import MAIN, Group, make_group, make_room, own_group, sweep

MOUNTS = (
    "24 1 0:22 / /proc rw,nosuid - proc proc rw\n"
    "31 24 0:28 / {mount} rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
)


def make_fake(folder: Path, controllers: str, handed: str = "") -> Path:
    """A folder with the files of a control group, as far as they are read."""
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text(controllers)
    (folder / "cgroup.subtree_control").write_text(handed)
    (folder / "cgroup.procs").write_text("")
    return folder


@pytest.fixture
def real() -> Iterator[str]:
    """The control group of this process, in which others can be made; the test is skipped where they may not."""
    own = own_group()
    try:
        if own is None:
            raise OSError("no cgroup v2")
        group = Group.below(own)
    except OSError as error:
        pytest.skip(f"no control group (cgroup v2) can be made on this machine: {error}")
    yield group.path
    group.kill()
    assert group.remove()


@pytest.mark.parametrize(
    ("path", "root", "found"),
    [
        ("/user.slice/user-1.slice/a.scope", "/", "/sys/fs/cgroup/user.slice/user-1.slice/a.scope"),
        ("/", "/", "/sys/fs/cgroup"),
        ("/docker/1/a", "/docker/1", "/sys/fs/cgroup/a"),
        ("/../other", "/", None),
        ("/docker/2", "/docker/1", None),
    ],
)
def test_own_group__is_found_below_the_mount(tmp_path: Path, path: str, root: str, found: str | None) -> None:
    mounts, membership = tmp_path / "mountinfo", tmp_path / "cgroup"
    mounts.write_text(MOUNTS.format(mount="/sys/fs/cgroup").replace("0:28 /", f"0:28 {root}"))
    membership.write_text(f"4:memory:/x\n0::{path}\n")
    assert own_group(str(mounts), str(membership)) == found


def test_own_group__is_none_without_cgroup_v2(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("24 1 0:22 / /proc rw,nosuid - proc proc rw\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    assert own_group(str(tmp_path / "mountinfo"), str(tmp_path / "cgroup")) is None
    assert own_group(str(tmp_path / "mountinfo"), str(tmp_path / "none")) is None


def test_limit__writes_what_the_kernel_expects(tmp_path: Path) -> None:
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max"):
        (tmp_path / name).write_text("")
    Group(str(tmp_path)).limit(2**31, 1.5)
    assert (tmp_path / "memory.max").read_text() == "2147483648"
    assert (tmp_path / "memory.swap.max").read_text() == "0"
    assert (tmp_path / "memory.oom.group").read_text() == "1"
    assert (tmp_path / "cpu.max").read_text() == "150000 100000"


def test_limit__does_without_swap_and_cpu_but_not_without_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("")
    Group(str(tmp_path)).limit(2**31, 0.001)
    (tmp_path / "memory.max").unlink()
    with pytest.raises(FileNotFoundError):
        Group(str(tmp_path)).limit(2**31, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("controllers", ["", "hugetlb", "cpu io"])
def test_make_group__is_none_where_memory_cannot_be_limited(tmp_path: Path, controllers: str) -> None:
    own = make_fake(make_fake(tmp_path / "above", controllers) / "own", controllers)
    assert make_group(2**30, 1.0, str(own)) is None
    assert sorted(one.name for one in own.iterdir() if one.is_dir()) == []
    assert sorted(one.name for one in own.parent.iterdir() if one.is_dir()) == ["own"]


def test_make_group__leaves_nothing_behind_when_the_limit_is_refused(tmp_path: Path) -> None:
    """A plain folder has no memory.max of its own, as little as a group whose controller was taken away meanwhile."""
    own = make_fake(make_fake(tmp_path / "above", "cpu memory", "cpu memory") / "own", "cpu memory")
    assert make_group(2**30, 1.0, str(own)) is None
    assert [one.name for one in own.parent.iterdir() if one.is_dir()] == ["own"]


def test_make_group__on_this_machine_limits_or_is_none() -> None:
    group = make_group(2**30, 1.0)
    if group is None:
        pytest.skip("this machine does not permit to limit memory with a control group (cgroup v2)")
    try:
        assert (Path(group.path) / "memory.max").read_text().strip() == str(2**30)
    finally:
        assert group.remove()


def test_group__holds_kills_and_is_removed_with_what_stands_below_it(real: str) -> None:
    group = Group.below(real)
    with subprocess.Popen(["sleep", "600"]) as process:
        inner = Group.below(group.path)
        inner.add(process.pid)
        assert not group.remove()  # something still runs in it
        group.kill()
        if not os.path.exists(f"{group.path}/cgroup.kill"):
            process.kill()
        assert process.wait() == -signal.SIGKILL
    assert group.remove()
    assert not os.path.exists(group.path)
    assert group.remove()


def test_sweep__removes_what_killed_wardens_have_left_only(real: str) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    running = Group.below(real)
    left = Path(real) / f"thresher-{gone.pid}-1"
    busy = Path(real) / f"thresher-{gone.pid}-2"
    other = Path(real) / "other"
    for folder in (left, busy, other):
        folder.mkdir()
    with subprocess.Popen(["sleep", "600"]) as process:
        Group(str(busy)).add(process.pid)
        sweep(real)
        process.kill()
    assert not left.exists()
    assert busy.exists() and other.exists() and os.path.exists(running.path)


def test_make_room__moves_all_processes_into_a_leaf(real: str) -> None:
    with subprocess.Popen(["sleep", "600"]) as one, subprocess.Popen(["sleep", "600"]) as other:
        for process in (one, other):
            Group(real).add(process.pid)
        make_room(real)
        moved = (Path(real) / MAIN / "cgroup.procs").read_text().split()
        one.kill()
        other.kill()
    assert (Path(real) / "cgroup.procs").read_text() == ""
    assert sorted(map(int, moved)) == sorted([one.pid, other.pid])
