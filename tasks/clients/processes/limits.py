"""Limiting a command and everything below it to a flavor's memory and CPU. Standard library only: the warden uses it.

Where the machine permits it, the command runs in a control group of its own (see control_groups.py): the kernel itself
then enforces ``memory.max`` and ``cpu.max`` on all of its processes together.

Everywhere else memory is monitored: :class:`ProcessBounds` adds up the use of all processes and reports an excess, and
RLIMIT_DATA refuses a process that asks for far more at once. (Not RLIMIT_AS: programs reserve address space that they
never use, CUDA and Go by the hundred GiB.) CPU is then limited only by the thread count variables
(tasks.domain.instance); pinning processes to cores would put two instances on the same ones.
"""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Iterable

from tasks.clients.processes.control_groups import REMOVE_SECONDS, Group, make_group, read
from tasks.clients.processes.output_drain import last_bytes

GIB = 1024**3
MIB = 1024**2
LOOK_SECONDS = (0.2, 1.0)
"""Shortest and longest time between two checks of the memory in use."""
FILLED_PER_SECOND = GIB
"""How fast a program may fill memory: the closer to the limit, the sooner the next check."""
RESERVED_BYTES = GIB
"""How much a process may at least reserve beyond its memory without using it: thread stacks, allocator pools."""
_TAIL_BYTES = 8192
# Does not match CUDA's OutOfMemoryError: the memory of an accelerator is not limited here.
_REFUSED = re.compile(rb"(?<!Of)MemoryError|bad_alloc|[Cc]annot allocate memory|can't allocate memory")


def amount(size: int) -> str:
    """A number of bytes in readable form: ``2.3 GiB``."""
    unit, name = (GIB, "GiB") if size >= GIB else (MIB, "MiB")
    return f"{size / unit:.2f}".rstrip("0").rstrip(".") + f" {name}"


def tree(root: int) -> set[int]:
    """Every process below this one; empty if the system does not list children (Linux without CONFIG_PROC_CHILDREN).

    The cost grows with the tree, not with the number of processes on the machine.
    """
    found: set[int] = set()
    todo = [root]
    while todo:
        pid = todo.pop()
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                children = {int(child) for child in read(f"/proc/{pid}/task/{task}/children").split()}
            except OSError:
                continue
            todo.extend(children - found)
            found |= children
    return found


def _fields(path: str, names: tuple[str, ...]) -> int:
    """The sum, in bytes, of some fields (in kB) of a file in /proc; 0 for a process that has ended."""
    try:
        lines = (line.partition(":") for line in read(path).splitlines())
        return sum(int(value.split()[0]) * 1024 for name, _, value in lines if name in names)
    except (OSError, ValueError, IndexError):
        return 0


def used_bytes(pids: Iterable[int], enough: int) -> int:
    """Total memory in use that cannot be reclaimed: file pages are not counted, shared pages only once.

    Shared pages are identified only if the total would otherwise exceed ``enough`` bytes, since that costs more.
    """
    pids = list(pids)
    own = {pid: _fields(f"/proc/{pid}/status", ("RssAnon", "RssShmem", "VmSwap")) for pid in pids}
    if sum(own.values()) <= enough:
        return sum(own.values())
    names = ("Pss_Anon", "Pss_Shmem", "SwapPss")
    return sum(_fields(f"/proc/{pid}/smaps_rollup", names) or size for pid, size in own.items())


class ProcessBounds:
    """The limits of one command, and the last line of its log if it has exceeded them."""

    def __init__(self, memory_bytes: int | None, cpu: float | None, log: str) -> None:
        self._memory_bytes = memory_bytes
        self._cpu = cpu
        self._log = log
        self._log_start = 0
        self._next_look = time.monotonic()
        self._excess = 0
        """Bytes in use when that was more than allowed; 0 until then."""
        self.group: Group | None = None

    def apply(self, pid: int) -> None:
        """Limit a process that has started nothing yet."""
        try:
            self._log_start = os.path.getsize(self._log)
        except OSError:
            pass
        self.group = make_group(self._memory_bytes, self._cpu)
        if self.group:
            try:
                self.group.add(pid)
                return
            except OSError:
                self.remove()
                self.group = None
        if self._memory_bytes is not None:
            _refuse_far_more(pid, self._memory_bytes)

    def seconds_to_next_look(self) -> float | None:
        """Seconds until :meth:`exceeded` should be called next; None if it need not be."""
        if self.group or self._memory_bytes is None:
            return None
        return max(0.0, self._next_look - time.monotonic())

    def exceeded(self, pids: Iterable[int]) -> bool:
        """Whether these processes use more memory than allowed; if so, :meth:`ended` adds a line to the log."""
        if self._memory_bytes is None:
            return False
        used = used_bytes(pids, self._memory_bytes)
        shortest, longest = LOOK_SECONDS
        left = (self._memory_bytes - used) / FILLED_PER_SECOND
        self._next_look = time.monotonic() + min(longest, max(shortest, left))
        if used <= self._memory_bytes:
            return False
        self._excess = used
        return True

    def ended(self, status: int) -> None:
        """The command has ended, and all its output is in the log: if its limits were the reason, add a line."""
        if self._memory_bytes is None:
            return
        allowed = amount(self._memory_bytes)
        if self._excess or (self.group and self.group.ran_out_of_memory()):
            used = f"{amount(self._excess)} of {allowed}" if self._excess else allowed
            self._say(f"the model server used more memory than its flavor allows ({used}) and was ended")
        if self._excess or self.group:
            return
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        if status < 0 and most > self._memory_bytes:
            self._say(f"the model server used more memory than its flavor allows ({amount(most)} of {allowed})")
        elif status and _REFUSED.search(last_bytes(self._log, _TAIL_BYTES, self._log_start)):
            self._say(f"the model server asked for more memory than its flavor allows ({allowed})")

    def remove(self) -> None:
        """Remove the control group, once no process runs in it."""
        deadline = time.monotonic() + REMOVE_SECONDS
        while self.group and not self.group.remove() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _say(self, text: str) -> None:
        start = "" if last_bytes(self._log, 1, self._log_start) in (b"", b"\n") else "\n"
        try:
            with open(self._log, "a") as file:
                file.write(f"{start}thresher: {text}\n")
        except OSError:
            pass


def _refuse_far_more(pid: int, memory_bytes: int) -> None:
    """Refuse a process more than it may ever use; memory that is only reserved counts, so the limit is generous."""
    most = memory_bytes + max(memory_bytes, RESERVED_BYTES)
    try:
        hard = resource.prlimit(pid, resource.RLIMIT_DATA)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))
    except (OSError, ValueError, AttributeError):
        pass  # its memory is monitored anyway
