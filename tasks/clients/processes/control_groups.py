"""Control groups (cgroup v2): the kernel limits all processes of a group together. Standard library only.

The groups made here are siblings of this process's own group: the kernel does not delegate the memory and CPU
controllers from a group that holds processes itself. So this user must have permission to change the parent group: in a
systemd service with ``Delegate=yes`` (whose processes are moved into a leaf of it), in a user's own session, or as
root. In a container they are mostly read-only.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable

PERIOD_MICROSECONDS = 100_000
REMOVE_SECONDS = 1.0
MAIN = "thresher-main"
_OURS = re.compile(r"thresher-([0-9]+)-[0-9]+")


def read(path: str) -> str:
    """The text of one of the kernel's files; raises OSError."""
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    # One write, and never a new file: these files belong to the kernel.
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def own_group(mounts: str = "/proc/self/mountinfo", membership: str = "/proc/self/cgroup") -> str | None:
    """The folder of this process's own control group (cgroup v2); None if it has none or cannot see it."""
    try:
        path = next((line[3:] for line in read(membership).splitlines() if line.startswith("0::")), None)
        if path is None or path.startswith("/.."):  # outside the container's view
            return None
        for line in read(mounts).splitlines():
            place, _, kind = line.partition(" - ")
            if kind.split(" ", 1)[0] == "cgroup2":
                root, mount = place.split(" ")[3:5]
                below = os.path.relpath(path, root)
                return None if below.startswith("..") else os.path.normpath(os.path.join(mount, below))
    except (OSError, ValueError):
        pass
    return None


class Group:
    """One control group (cgroup v2): a folder in the kernel's file system."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def below(cls, parent: str) -> Group:
        """Make a group for this process below ``parent``; raises OSError."""
        sweep(parent)
        path = os.path.join(parent, f"thresher-{os.getpid()}-{time.monotonic_ns()}")
        os.mkdir(path)
        return cls(path)

    def limit(self, memory_bytes: int | None, cpu: float | None) -> None:
        """Limit the total use of its processes; raises OSError if memory cannot be limited."""
        if memory_bytes is not None:
            _write(os.path.join(self.path, "memory.max"), str(memory_bytes))
        if cpu is not None:
            quota = max(1000, round(cpu * PERIOD_MICROSECONDS))
            self._try("cpu.max", f"{quota} {PERIOD_MICROSECONDS}")
        if memory_bytes is not None:
            self._try("memory.swap.max", "0")
            # Kill all processes or none: a model server that has lost one of them just hangs.
            self._try("memory.oom.group", "1")

    def _try(self, name: str, text: str) -> None:
        try:
            _write(os.path.join(self.path, name), text)
        except OSError:
            pass  # an older kernel, or a controller that was not delegated

    def add(self, pid: int) -> None:
        """Move a process into it; raises OSError."""
        _write(os.path.join(self.path, "cgroup.procs"), str(pid))

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel has killed one of its processes for lack of memory."""
        try:
            events = dict(line.split() for line in read(os.path.join(self.path, "memory.events")).splitlines())
        except (OSError, ValueError):
            return False
        return int(events.get("oom_kill", 0)) > 0

    def kill(self) -> None:
        """Kill all its processes at once, where the kernel supports it (Linux 5.14)."""
        self._try("cgroup.kill", "1")

    def remove(self) -> bool:
        """Remove it and all groups below it; False if a process still runs in it."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue
        return not os.path.isdir(self.path)


def sweep(parent: str) -> None:
    """Remove the empty groups of wardens that were killed together with their owners."""
    for name in os.listdir(parent):
        found = _OURS.fullmatch(name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            Group(os.path.join(parent, name)).remove()


def _hand_down(parent: str, controllers: Iterable[str]) -> None:
    """Delegate these controllers to the groups below ``parent``; raises OSError if that is not permitted."""
    control = os.path.join(parent, "cgroup.subtree_control")
    there = set(read(os.path.join(parent, "cgroup.controllers")).split())
    for name in controllers:
        if name in there and name not in read(control).split():
            _write(control, f"+{name}")


def _delegated(path: str) -> bool:
    """Whether systemd has delegated this group to its processes (Delegate=yes)."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(path, name) == b"1":
                return True
        except OSError:
            continue
    return False


def make_room(path: str) -> None:
    """Move a group's processes into a leaf below it: only a group without processes can delegate controllers."""
    leaf = Group(os.path.join(path, MAIN))
    os.makedirs(leaf.path, exist_ok=True)
    for _ in range(100):  # processes started during a round are moved in the next
        pids = [int(pid) for pid in read(os.path.join(path, "cgroup.procs")).split()]
        if not pids:
            return
        for pid in pids:
            try:
                leaf.add(pid)
            except ProcessLookupError:
                continue


def make_group(memory_bytes: int | None, cpu: float | None, own: str | None = None) -> Group | None:
    """A limited control group for a command of this process; None if the machine does not permit one.

    ``own`` is this process's own group. The new one is usually its sibling: the kernel does not delegate controllers
    from a group that holds processes itself, unless it is the machine's root group.
    """
    own = own_group() if own is None else own
    if own is None:
        return None
    parents = [own, os.path.dirname(own)]
    if _delegated(own):
        try:
            _hand_down(own, ("memory", "cpu"))
        except OSError:
            try:
                make_room(own)
            except OSError:
                pass
    for parent in parents:
        group = None
        try:
            _hand_down(parent, ("memory",) if memory_bytes is not None else ("cpu",))
            try:
                _hand_down(parent, ("cpu",))
            except OSError:
                pass  # limiting memory alone is worthwhile
            handed = read(os.path.join(parent, "cgroup.subtree_control")).split()
            if ("memory" if memory_bytes is not None else "cpu") not in handed:
                continue
            group = Group.below(parent)
            group.limit(memory_bytes, cpu)
            return group
        except OSError:
            if group:
                group.remove()
    return None
