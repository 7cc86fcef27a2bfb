"""The account at the other end of a connection on this machine, and the one that listens on a port.

As reported by the kernel. Linux only; elsewhere, and where the kernel has no answer, the result is None.
"""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

PeerAddress = tuple[str, int]
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_CONNECTED, _LISTENING = "01", "0A"
"""Only these states show the owner: a connection that is being closed shows root."""


def peer_account(peer: PeerAddress, own: PeerAddress) -> int | None:
    """The user id of the process connected from ``peer`` to ``own``, both addresses of this machine."""
    return _owner(_hex(peer), _hex(own), _CONNECTED)


def listening_account(address: PeerAddress) -> int | None:
    """The user id of the process that listens on this address of this machine."""
    return _owner(_hex(address), None, _LISTENING)


def _owner(local: str, remote: str | None, state: str) -> int | None:
    for table in _TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            # sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...
            fields = line.split()
            if fields[1] == local and fields[3] == state and remote in (None, fields[2]) and fields[9] != "0":
                return int(fields[7])
    return None


def _hex(address: PeerAddress) -> str:
    """An address as in the kernel's tables: in words of the machine's byte order."""
    packed = ipaddress.ip_address(address[0]).packed
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    ordered = [word[::-1] if sys.byteorder == "little" else word for word in words]
    return f"{b''.join(ordered).hex().upper()}:{address[1]:04X}"
