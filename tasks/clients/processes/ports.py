"""Ports for model servers on this machine, and the owners of ports."""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import suppress

import psutil

from tasks.clients.processes.lifeline import WARDEN

HOST = "127.0.0.1"
_REMEMBERED = 1000

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
    owner, own = None, set()
    with suppress(psutil.Error):
        owner = psutil.Process(root)
        own = {root, *(one.pid for one in owner.children(recursive=True))}
    listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    listeners = {one.pid for one in listening if one.laddr.port == port and one.pid is not None}
    if not listeners or listeners & own:
        return False
    return any(_listens_for_another(pid, owner) for pid in listeners)


def _listens_for_another(pid: int, owner: psutil.Process | None) -> bool:
    with suppress(psutil.Error):  # it has ended
        process = psutil.Process(pid)
        if owner is None or process.create_time() < owner.create_time():
            return True
        return any(argument.endswith(WARDEN.name) for one in process.parents() for argument in one.cmdline())
    return False
