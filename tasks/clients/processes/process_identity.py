"""The identity of the process that does a run, in a form that shows later whether the process still exists."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from tasks.clients import clock
from tasks.clients.processes.lifeline import ENDED
from tasks.clients.processes.warden import stat

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def own_process() -> str:
    """This process: its machine's boot id, the namespace of its process ids, its process id, and its start time."""
    return _own(_place(), "/")


def is_there(process: str) -> bool | None:
    """Whether a process, as identified by :func:`own_process`, still exists; None if that cannot be determined here.

    That is so on another machine, outside the process's container, or for an empty identity.
    """
    return _exists(process, _place(), "/")


def short_own_process() -> str:
    """This process, as a part of a file name: like :func:`own_process`, but shorter and without slashes."""
    return _own(_short_place(), "-")


def is_gone(short: str) -> bool:
    """Whether a process, as identified by :func:`short_own_process`, has ended; False if that cannot be determined
    here.
    """
    return _exists(short, _short_place(), "-") is False


def _own(place: str, between: str) -> str:
    return f"{place}{between}{os.getpid()}{between}{_started(os.getpid())}"


def _exists(process: str, own_place: str, between: str) -> bool | None:
    place, pid, began = (*process.split(between), "", "")[:3]
    if place != own_place or not pid.isdigit() or not began.isdigit():
        return None
    return str(_started(int(pid))) == began


def _short_place() -> str:
    return hashlib.sha256(_place().encode()).hexdigest()[:12]


def _started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None if it has ended, or the system does not show it."""
    with suppress(OSError):
        fields = stat(pid)
        return None if fields[0] in ENDED else int(fields[19])
    return None


def own_start() -> float:
    """When this process began, in seconds since 1970; now, if that is unknown."""
    ticks = _started(os.getpid())
    if ticks is None:
        return clock.now()
    return clock.now() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


@cache
def _place() -> str:
    return f"{_BOOT.read_text().strip()}:{os.readlink('/proc/self/ns/pid')}"
