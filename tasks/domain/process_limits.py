"""Limits of a process that are too tight for a command, reported where nothing else explains a failure."""

from __future__ import annotations

from tasks.domain.errors import Problem

FEWEST_FILES = 64
"""With fewer file descriptors, a command that calls or starts a server may fail anywhere."""
LEAST_MEMORY = 1 << 30
"""Bytes of address space; most of it is never used, but reserved by threads and libraries."""


def tight_limits(files: int | None, memory: int | None) -> list[Problem]:
    """The limits that a shell's ``ulimit`` sets too low; None means no limit."""
    found = []
    if files is not None and files < FEWEST_FILES:
        found.append(Problem("", None, f"This process may open {files} files only: raise the limit, `ulimit -n 4096`."))
    if memory is not None and memory < LEAST_MEMORY:
        detail = f"This process may use {memory >> 20} MiB of memory only: raise the limit, `ulimit -v unlimited`."
        found.append(Problem("", None, detail))
    return found
