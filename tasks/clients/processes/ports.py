"""Ports for model servers on this machine, and the owners of ports."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

from tasks.clients.processes.lifeline import WARDEN, started
from tasks.clients.processes.warden import below, stats

HOST = "127.0.0.1"
_REMEMBERED = 1000
_LISTENING = "0A"
"""State of a listening socket in /proc/net/tcp (Linux: include/net/tcp_states.h)."""

_given: deque[int] = deque(maxlen=_REMEMBERED)
_lock = threading.Lock()


def free_port() -> int:
    """A port that is free now and was not given to another server of this process lately.

    Another process may still take it before the server does: see :func:`belongs_to_another`.
    """
    with _lock:
        while True:
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                port: int = probe.getsockname()[1]
            if port not in _given:
                _given.append(port)
                return port


def belongs_to_another(port: int, root: int) -> bool:
    """Whether a process listens on the port that is neither ``root`` nor below it, and cannot do so on its behalf.

    A process that is younger than ``root`` can, unless ``root`` has ended: the proxy of a container that it has
    started. One below another warden cannot: it is, or belongs to, another model server. Also False if no process
    listens, or if the system does not show which one does.
    """
    sockets = _listening(port)
    if not sockets:
        return False
    own = {root, *below(root)}
    if any(_holds(pid, sockets) for pid in own):
        return False
    processes = stats()
    parents = {pid: int(fields[1]) for pid, fields in processes.items()}
    since = started(root)
    return any(
        since is None or (started(pid) or since) < since or _is_guarded(pid, parents)
        for pid in processes
        if pid not in own and _holds(pid, sockets)
    )


def _is_guarded(pid: int, parents: dict[int, int]) -> bool:
    """Whether a process is below a warden."""
    while pid := parents.get(pid, 0):
        with suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(argument.endswith(WARDEN.name.encode()) for argument in arguments):
                return True
    return False


def _listening(port: int) -> set[str]:
    """The sockets that listen on a port, by their names in /proc/*/fd."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found


def _holds(pid: int, sockets: set[str]) -> bool:
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}") in sockets:
                    return True
    except OSError:  # it has ended, or belongs to another user
        pass
    return False
