"""Holding a command and everything below it to a flavor's memory and CPU. Standard library only: the warden uses it.

Where the machine permits it, the command runs in a control group of its own (see control_groups.py): the kernel itself
then holds all of its processes together to ``memory.max`` and ``cpu.max``.

Everywhere else memory is watched: :class:`Bounds` adds up what the processes use and tells when it is too much, and a
process that asks for far more at once is refused by RLIMIT_DATA. (Not RLIMIT_AS: programs reserve address space that
they never use, CUDA and Go by the hundred GiB.) CPU is then left to the thread count variables (tasks.domain.instance);
binding processes to cores would put two instances on the same ones.
"""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Iterable

from tasks.clients.control_groups import REMOVE_SECONDS, Group, make_group, read

GIB = 1024**3
MIB = 1024**2
LOOK_SECONDS = (0.2, 1.0)
"""Shortest and longest time between two looks at the memory that is used."""
FILLED_PER_SECOND = GIB
"""How fast a program may fill memory: the closer to the limit, the sooner the next look."""
RESERVED_BYTES = GIB
"""What a process may at least reserve beyond its memory without using it: stacks of threads, pools of allocators."""
_TAIL_BYTES = 8192
# Not the word of CUDA, which ends in OutOfMemoryError: the memory of an accelerator is not limited here.
_REFUSED = re.compile(rb"(?<!Of)MemoryError|bad_alloc|[Cc]annot allocate memory|can't allocate memory")


def amount(size: int) -> str:
    """A number of bytes for people: ``2.3 GiB``."""
    unit, name = (GIB, "GiB") if size >= GIB else (MIB, "MiB")
    return f"{size / unit:.2f}".rstrip("0").rstrip(".") + f" {name}"


def tree(root: int) -> set[int]:
    """Every process below this one; none if the system does not tell (Linux without CONFIG_PROC_CHILDREN).

    Costs as much as the tree is large, not as much as the machine has processes.
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
    """The sum of some fields in kB of a file in /proc, in bytes; 0 for a process that has ended."""
    try:
        lines = (line.partition(":") for line in read(path).splitlines())
        return sum(int(value.split()[0]) * 1024 for name, _, value in lines if name in names)
    except (OSError, ValueError, IndexError):
        return 0


def used_bytes(pids: Iterable[int], enough: int) -> int:
    """What processes use together and could not give back: pages of files are not counted, shared ones only once.

    What is shared is told apart only if there would be more than ``enough`` bytes otherwise: that costs more to ask.
    """
    pids = list(pids)
    own = {pid: _fields(f"/proc/{pid}/status", ("RssAnon", "RssShmem", "VmSwap")) for pid in pids}
    if sum(own.values()) <= enough:
        return sum(own.values())
    names = ("Pss_Anon", "Pss_Shmem", "SwapPss")
    return sum(_fields(f"/proc/{pid}/smaps_rollup", names) or size for pid, size in own.items())


class Bounds:
    """The limits of one command, and the last line of its log if it has exceeded them."""

    def __init__(self, memory_bytes: int | None, cpu: float | None, log: str) -> None:
        self._memory_bytes = memory_bytes
        self._cpu = cpu
        self._log = log
        self._log_start = 0
        self._next_look = time.monotonic()
        self._said = False
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
        """When :meth:`exceeded` should be asked next; None if the kernel looks after it all."""
        if self.group or self._memory_bytes is None:
            return None
        return max(0.0, self._next_look - time.monotonic())

    def exceeded(self, pids: Iterable[int]) -> bool:
        """Whether these processes use more memory than allowed; if so, the log says it from now on."""
        if self._memory_bytes is None:
            return False
        used = used_bytes(pids, self._memory_bytes)
        shortest, longest = LOOK_SECONDS
        left = (self._memory_bytes - used) / FILLED_PER_SECOND
        self._next_look = time.monotonic() + min(longest, max(shortest, left))
        if used <= self._memory_bytes:
            return False
        self._say(
            "the model server used more memory than its flavor allows "
            f"({amount(used)} of {amount(self._memory_bytes)}) and was ended"
        )
        return True

    def ended(self, status: int) -> None:
        """The command has ended by itself: have the log say so if its limits were the reason."""
        if self._memory_bytes is None or self._said:
            return
        allowed = amount(self._memory_bytes)
        if self.group:
            if self.group.ran_out_of_memory():
                self._say(f"the model server used more memory than its flavor allows ({allowed}) and was ended")
            return
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        if status < 0 and most > self._memory_bytes:
            self._say(f"the model server used more memory than its flavor allows ({amount(most)} of {allowed})")
        elif status and _REFUSED.search(self._tail()):
            self._say(f"the model server asked for more memory than its flavor allows ({allowed})")

    def remove(self) -> None:
        """Remove the control group, once nothing runs in it any more."""
        deadline = time.monotonic() + REMOVE_SECONDS
        while self.group and not self.group.remove() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _tail(self) -> bytes:
        try:
            with open(self._log, "rb") as file:
                file.seek(max(self._log_start, os.path.getsize(self._log) - _TAIL_BYTES))
                return file.read()
        except OSError:
            return b""

    def _say(self, text: str) -> None:
        self._said = True
        start = "" if self._tail()[-1:] in (b"", b"\n") else "\n"
        try:
            with open(self._log, "a") as file:
                file.write(f"{start}thresher: {text}\n")
        except OSError:
            pass


def _refuse_far_more(pid: int, memory_bytes: int) -> None:
    """Refuse a process what it can never use; what is only reserved counts here, so there is some room."""
    most = memory_bytes + max(memory_bytes, RESERVED_BYTES)
    try:
        hard = resource.prlimit(pid, resource.RLIMIT_DATA)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))
    except (OSError, ValueError, AttributeError):
        pass  # it is watched all the same
