"""Names that no other process makes, on any host, in any container, before or after a restart.

A process id does not suffice: processes in different containers may have the same id and share a folder.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable

_RANDOM_BYTES = 16


def _named() -> Callable[[], str]:
    token, numbers = secrets.token_hex(_RANDOM_BYTES), itertools.count()
    return lambda: f"{token}-{next(numbers)}"


_next = _named()


def unique_name() -> str:
    """A new name: letters, digits and a dash."""
    return _next()


def renew() -> None:
    """Draw another token, for a process that was copied with all its state."""
    global _next
    _next = _named()


os.register_at_fork(after_in_child=renew)


def open_new(folder: str) -> tuple[int, str]:
    """A new file in ``folder``, opened for writing, and its path. Raises OSError; never opens an existing file."""
    while True:
        path = f"{folder}/{unique_name()}"
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path
        except FileExistsError:  # the machine itself was cloned while it ran
            renew()
