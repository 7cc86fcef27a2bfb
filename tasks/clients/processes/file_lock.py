"""Locks between the processes of this machine, on files: the kernel releases them however their holder ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def locked(path: Path, access: int = os.O_RDONLY, mode: int = 0o644) -> int | None:
    """The open file, unless it is locked elsewhere; closing it releases the lock, and no child inherits it.

    Files are never removed: a lock on a removed file would exclude no other process. Other users' files can also be
    locked. Raises OSError.
    """
    try:
        handle = os.open(path, access)
    except FileNotFoundError:
        handle = os.open(path, access | os.O_CREAT, mode)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle
