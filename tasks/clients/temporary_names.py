"""Names that no other process makes, on whatever host, in whatever container, before or after a restart.

A process id is no such name: processes in containers have the same ones, and may share a folder.
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
    """Draw another token: for a process that was copied, with all that it knows."""
    global _next
    _next = _named()


os.register_at_fork(after_in_child=renew)


def open_new(folder: str, mode: int = 0o666) -> tuple[int, str]:
    """A new file in ``folder``, opened for writing, and its path. Raises OSError; never opens one that is there."""
    while True:
        path = f"{folder}/{unique_name()}"
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), path
        except FileExistsError:  # the machine itself was copied while it ran
            renew()
