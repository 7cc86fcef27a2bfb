"""Hides a process's memory from other processes of its user. Standard library only."""

from __future__ import annotations

import ctypes

PR_SET_DUMPABLE = 4


def hide_memory() -> None:
    """Close this process's environment, memory and open files to processes without privileges.

    A model server runs as the same user, who may read ``/proc/<pid>/environ`` and ``mem`` of all their processes, and
    attach a debugger to them. For a process that is not dumpable, only root may. Children inherit this until they
    execute another program, so each program that holds keys calls this first. Linux only; elsewhere it does nothing.
    """
    try:
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):
        pass  # not Linux
