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
    return f"{place}{between}{os.getpid()}{between}{started(os.getpid())}"


def _exists(process: str, own_place: str, between: str) -> bool | None:
    place, pid, began = (*process.split(between), "", "")[:3]
    if place != own_place or not pid.isdigit() or not began.isdigit():
        return None
    return str(started(int(pid))) == began


def _short_place() -> str:
    return hashlib.sha256(_place().encode()).hexdigest()[:12]


def own_start() -> float:
    """When this process began, in seconds since 1970; now, if that is unknown."""
    ticks = started(os.getpid())
    if ticks is None:
        return clock.now()
    return clock.now() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


@cache
def _place() -> str:
    return f"{_BOOT.read_text().strip()}:{os.readlink('/proc/self/ns/pid')}"
