"""Runs a command and measures it with all that it starts, also with what it leaves to others.

    python tests/benchmarks/process_tree.py LOG COMMAND ARGUMENTS...

writes the command's output to the file LOG and prints one JSON object: `whole_seconds` from its start to its end,
`cpu_seconds` of all its processes, `peak_rss_mb`: the largest memory that they had together, shared pages counted once.
Both are looked at every quarter of a second. CPU is the larger of what was seen and of what the kernel sums up, which
forgets the children of those who do not wait for them. Orphans come to this process (it is their subreaper). What still
runs some time after the command's end is killed, and is an error: a contestant cleans up. Ends with the command's code,
or with 3.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 15.0
"""How long processes may take to end after the command has."""
LEFT_BEHIND = 3


def descendants(root: int) -> list[int]:
    """Every process that comes from this one, itself left out."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            children.setdefault(parent, []).append(int(name))
    found = list(children.get(root, ()))
    for pid in found:  # grows while it is read
        found += children.get(pid, ())
    return found


def memory_mb(pids: list[int]) -> float:
    """What the processes hold together; a page that several of them share counts in parts."""
    total = 0
    for pid in pids:
        try:
            held = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has just ended
            continue
        total += int(held[1]) if held else 0
    return total / 1024


def own_cpu_seconds(pid: int) -> float:
    """What the process has used so far, without its children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


class Watch:
    """Looks at the tree from a thread of its own, as a context manager."""

    def __init__(self) -> None:
        self.peak = 0.0
        """MB."""
        self._cpu: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def cpu_seconds(self) -> float:
        """What all processes have used that were seen."""
        return sum(self._cpu.values())

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            pids = descendants(os.getpid())
            self.peak = max(self.peak, memory_mb(pids))
            for pid in pids:
                self._cpu[pid] = max(self._cpu.get(pid, 0.0), own_cpu_seconds(pid))


def reap(patience_seconds: float) -> list[str]:
    """Wait until no child is left; those that had to be killed, by name."""
    deadline, killed = time.monotonic() + patience_seconds, set()
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return sorted(killed)
        if pid:
            continue
        if time.monotonic() > deadline:
            for left in descendants(os.getpid()):
                killed.add(_name(left))
                os.kill(left, signal.SIGKILL)
            deadline = time.monotonic() + 1
        time.sleep(0.02)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return str(pid)


def main() -> int:
    """Run the command; its code."""
    log, *command = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot become a subreaper")
    started = time.perf_counter()
    with Watch() as watch, open(log, "wb") as output:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
        seconds = time.perf_counter() - started
        killed = reap(PATIENCE_SECONDS)
    if killed:
        print(f"still there {PATIENCE_SECONDS:g} s after the end of {command[0]}: {', '.join(killed)}", file=sys.stderr)
        return code or LEFT_BEHIND
    if code:
        print(Path(log).read_text(errors="replace")[-4000:], file=sys.stderr)
        return code
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = max(used.ru_utime + used.ru_stime, watch.cpu_seconds)
    figures = {"whole_seconds": seconds, "cpu_seconds": cpu, "peak_rss_mb": watch.peak}
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
