"""The output of a command, from a pipe into a file of bounded size. Standard library only (the warden uses it).

The pipe is read as fast as a command may reasonably print. A limited number of bytes a second, and a burst, go into the
file. Of the rest, the tail is kept until it fits, and the file says how much is missing.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import deque

BYTES_PER_SECOND = 1 << 20
BURST_BYTES = 8 << 20
DISK_BYTES = 64 << 20
"""Disk space that the file may take; a reader frees what it has read (see output_follower.py)."""
TAIL_BYTES = 64 << 10
READ_BYTES = 256 << 10
PIPE_BYTES = 1 << 20
DRAINED_PER_SECOND = 100e6
"""A command whose discarded output comes faster than this has to wait: it would take up a whole core."""
UNKNOWN_BYTES = 4096
"""Bytes left out of a line whose beginning is missing: a secret may have begun before."""
_F_SETPIPE_SZ = 1031
NOT_KEPT = b"(%d bytes not kept: the model server prints faster than THRESHER_LOG_BYTES_PER_SECOND)\n"


class Drain:
    """The read end of a pipe for a command's output. ``write_end`` is for the command: close it here once it has it."""

    def __init__(self, log: str, bytes_per_second: float = BYTES_PER_SECOND) -> None:
        self.descriptor, self.write_end = os.pipe()
        try:
            fcntl.fcntl(self.write_end, _F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # a smaller pipe also works
        os.set_blocking(self.descriptor, False)
        # A model that is already running may have put a link in its place.
        self._file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._rate = bytes_per_second
        self._allowed = float(BURST_BYTES)
        self._at = time.monotonic()
        self._tail: deque[bytes] = deque()
        self._held = 0
        self._lost = 0
        self._rest_until = 0.0
        self._ended_line = True
        self._open = True

    def rest_seconds(self) -> float | None:
        """Seconds to wait before the next read; None once the write end is closed."""
        return max(0.0, self._rest_until - time.monotonic()) if self._open else None

    def take(self) -> bool:
        """Read one piece of the output, if there is any; whether there was."""
        if not self._open:
            return False
        try:
            data = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._open = False
            self._write_tail()
            return False
        now = time.monotonic()
        self._allowed = min(BURST_BYTES, self._allowed + (now - self._at) * self._rate)
        self._at = now
        if self._held and self._allowed > max(self._rate / 2, 2 * TAIL_BYTES) and not self._disk_is_full():
            self._write_tail()
        if not self._held and len(data) <= self._allowed and not self._disk_is_full():
            self._write(data)
            return True
        if not self._held:  # the gap begins at a line start, lest the beginning of a secret is shown
            end = data.find(b"\n", 0, TAIL_BYTES) + 1
            self._write(data[:end])
            data = data[end:]
        self._keep(data)
        self._rest_until = now + len(data) / DRAINED_PER_SECOND
        return True

    def flush(self) -> None:
        """Move the output so far into the file, with the tail of what was held back."""
        for _ in range(2 * PIPE_BYTES // READ_BYTES):
            if not self.take():
                break
        self._write_tail()

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._tail.append(data[-TAIL_BYTES:])
        self._lost += len(data) - len(self._tail[-1])
        self._held += len(self._tail[-1])
        while self._held - len(self._tail[0]) >= TAIL_BYTES:
            gone = len(self._tail.popleft())
            self._held -= gone
            self._lost += gone

    def _write_tail(self) -> None:
        if not self._held:
            return
        tail, lost = b"".join(self._tail), self._lost
        self._tail.clear()
        self._held = self._lost = 0
        if len(tail) > TAIL_BYTES:
            lost += len(tail) - TAIL_BYTES
            tail = tail[-TAIL_BYTES:]
        if lost:
            begin = tail.find(b"\n") + 1 or min(UNKNOWN_BYTES, len(tail) // 2)  # not in the middle of a secret
            lost, tail = lost + begin, tail[begin:]
            self._write((b"" if self._ended_line else b"\n") + NOT_KEPT % lost)
        self._write(tail)

    def _write(self, data: bytes) -> None:
        self._allowed -= len(data)
        self._ended_line = data.endswith(b"\n")
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            self._lost += len(data)  # a full disk

    def _disk_is_full(self) -> bool:
        return os.fstat(self._file).st_blocks * 512 > DISK_BYTES


def last_bytes(log: str | os.PathLike[str], size: int, start: int = 0) -> bytes:
    """The end of a log: at most ``size`` bytes, and none before ``start``; empty if it cannot be read.

    A link that a model has put in its place is not followed.
    """
    try:
        with open(os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            file.seek(max(start, os.fstat(file.fileno()).st_size - size))
            return file.read(size)
    except OSError:
        return b""
