"""Access to the stack of ``thresher up``: its address, and its password, created once. Does not import Prefect.

The password is in the stack's folder, readable by its own account only: commands of that account find it there.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tasks.clients.processes.peers import listening_account
from tasks.clients.surroundings.proxies import is_loopback
from tasks.domain.errors import CallError, Problem
from tasks.domain.settings import read_settings

STACK_FILE = "stack.json"
"""Kept by ``thresher up`` in the stack's folder while it runs: {"api": "http://..."}."""
PASSWORD_FILE = "password"  # noqa: S105 - a file's name
USER = "thresher"
"""The user name before the password, for tools that require one."""


def stack_file() -> Path:
    """The file in which ``thresher up`` publishes its address."""
    return read_settings().stack / STACK_FILE


def password_file() -> Path:
    """The file with the stack's password, as USER:PASSWORD."""
    return read_settings().stack / PASSWORD_FILE


def stack_address() -> str:
    """API address of the stack, from its file; empty if there is no valid file."""
    try:
        return str(json.loads(stack_file().read_bytes())["api"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def password_for(url: str) -> str:
    """The password of the server at this address, if that is the stack; else empty."""
    stack = stack_address()
    if not stack or not is_loopback(url) or _port(url) != _port(stack) or not is_own(stack):
        return ""
    try:
        return password_file().read_text().strip()
    except (OSError, ValueError):
        return ""


def refused(where: str, status: int) -> str:
    """The message for a Prefect server that rejects the credentials, or requires some."""
    return (
        f"The Prefect server {where} refuses these credentials (HTTP {status}): set PREFECT_API_AUTH_STRING (or "
        "PREFECT_API_KEY) to what its administrator has given you; for `thresher up` that is what stands in "
        f"{password_file()}."
    )


def is_own(url: str) -> bool:
    """Whether no other account listens on the port of this address, so that the password may be sent there."""
    return listening_account(("127.0.0.1", _port(url) or 0)) in (None, os.geteuid())


def made_password(folder: Path) -> str:
    """The stack's password, created by the first call. For the holder of the folder's lock. Raises CallError."""
    path = folder / PASSWORD_FILE
    try:
        if path.exists():
            path.chmod(0o600)
            if password := path.read_text().strip():
                return password
        path.unlink(missing_ok=True)
        password = f"{USER}:{secrets.token_urlsafe(24)}"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{password}\n")
            file.flush()
            os.fsync(file.fileno())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        expected = f"the file {path.name} in it cannot be used: {why}"
        raise CallError([Problem("THRESHER_STACK", str(folder), expected)]) from None
    return password


def private_folder(folder: Path) -> None:
    """Create a folder for its own account only, or restrict an existing one to it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(PermissionError):  # it belongs to another account, which has granted access
        folder.chmod(0o700)


def _port(url: str) -> int | None:
    try:
        parts = urlsplit(url)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
