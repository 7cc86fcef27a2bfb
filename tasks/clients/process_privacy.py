"""Keeps what a process holds in memory from the other processes of its user. Standard library only."""

from __future__ import annotations

import ctypes

PR_SET_DUMPABLE = 4


def hide_memory() -> None:
    """From now on the environment, memory and open files of this process are closed to processes without privileges.

    A model server runs as the same user, who may read ``/proc/<pid>/environ`` and ``mem`` of each of his processes, and
    attach a debugger to it; of one that is not dumpable only root may. Children inherit it until they execute another
    program, so each program that holds keys calls this first. Linux only; elsewhere it does nothing.
    """
    try:
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):
        pass  # not Linux
