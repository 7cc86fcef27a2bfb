"""The identity of the process that does a run, in a form that shows later whether the process still exists."""

from __future__ import annotations

import hashlib
import os
import time
from functools import cache
from pathlib import Path

from tasks.clients import clock
from tasks.clients.processes.lifeline import started

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def own_process() -> str:
    """This process: its machine's boot id, the namespace of its process ids, its process id, and its start time."""
    return f"{_place()}/{os.getpid()}/{started(os.getpid())}"


def is_there(process: str) -> bool | None:
    """Whether a process, as identified by :func:`own_process`, still exists; None if that cannot be determined here.

    That is so on another machine, outside the process's container, or for an empty identity.
    """
    place, _, rest = process.partition("/")
    pid, _, began = rest.partition("/")
    if place != _place() or not pid.isdigit():
        return None
    return str(started(int(pid))) == began


def short_own_process() -> str:
    """This process, as a part of a file name: like :func:`own_process`, but shorter and without slashes."""
    return f"{_short(_place())}-{os.getpid()}-{started(os.getpid())}"


def is_gone(short: str) -> bool:
    """Whether a process, as identified by :func:`short_own_process`, has ended; False if that cannot be determined
    here.
    """
    place, _, rest = short.partition("-")
    pid, _, began = rest.partition("-")
    if place != _short(_place()) or not pid.isdigit() or not began.isdigit():
        return False
    return str(started(int(pid))) != began


def _short(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()[:12]


def own_start() -> float:
    """When this process began, in seconds since 1970; now, if that is unknown."""
    ticks = started(os.getpid())
    if ticks is None:
        return clock.now()
    return clock.now() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


@cache
def _place() -> str:
    return f"{_BOOT.read_text().strip()}:{os.readlink('/proc/self/ns/pid')}"
