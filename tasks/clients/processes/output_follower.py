"""A model server's output, line by line as it is printed, from the file that it goes to."""

from __future__ import annotations

import asyncio
import ctypes
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tasks.domain.masking import Masker
from tasks.domain.plain_text import plain_lines

POLL_SECONDS = 0.2
READ_BYTES = 64 << 10
LINE_BYTES = 64 << 10
"""A line that grows beyond this is delivered in pieces."""
KEPT_BYTES = 16 << 20
"""Once this much has been read, its disk space is freed, so that a verbose server does not fill the disk."""
TAIL_BYTES = 64 << 10
UNFINISHED_BYTES = 64
"""Bytes at the end of a piece that may hold an unfinished escape sequence or character."""
_PUNCH_HOLE = 3
"""FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE of Linux."""

Deliver = Callable[[Sequence[str]], Awaitable[None]]


class OutputFollower:
    """Follows one file from its start and delivers its lines, masked and fit for display, until it is closed.

    The writer must append (O_APPEND), as the warden does. The file need not exist yet. More lines are read only once
    the last ones are delivered, so nothing accumulates in memory.
    """

    def __init__(self, path: Path, masker: Masker, deliver: Deliver, kept_bytes: int = KEPT_BYTES) -> None:
        self._path = path
        self._masker = masker
        self._deliver = deliver
        self._kept_bytes = kept_bytes
        self._file: BinaryIO | None = None
        self._freed = 0
        self._rest = b""
        self._closing = asyncio.Event()
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Deliver what is left and stop following. Call it once the writer has ended."""
        self._closing.set()
        try:
            await self._following
        finally:
            if self._file is not None:
                self._file.close()

    async def _follow(self) -> None:
        while True:
            last = self._closing.is_set()
            await self._read_to_end()
            if last:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._closing.wait()
        if self._rest:
            await self._hand_on(self._rest)
            self._rest = b""

    async def _read_to_end(self) -> None:
        if self._file is None:
            self._file = _opened(self._path)
            if self._file is None:
                return
        while data := self._file.read(READ_BYTES):
            whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
            if newline:
                await self._hand_on(whole)
            if len(self._rest) > LINE_BYTES:
                await self._cut()
            await asyncio.sleep(0)  # delivering may not have yielded to the event loop
        position = self._file.tell()
        if position - self._freed > self._kept_bytes:
            self._free(position)

    def _free(self, position: int) -> None:
        """Free the disk space of what was read, except the tail, which shows why a server has ended."""
        assert self._file is not None
        end = position - TAIL_BYTES
        if _punch(self._file.fileno(), end):
            self._freed = end
        elif os.fstat(self._file.fileno()).st_size == position:  # a file system that cannot punch holes
            with suppress(OSError):
                os.truncate(self._file.fileno(), 0)
                self._file.seek(0)
                self._freed = 0

    async def _cut(self) -> None:
        """Hand on the beginning of a very long line, without splitting a secret, an escape sequence or a character."""
        end = len(self._rest) - UNFINISHED_BYTES
        escape = self._rest.rfind(b"\x1b", end - UNFINISHED_BYTES, end)
        end = escape if escape > 0 else end
        while end and self._rest[end] & 0xC0 == 0x80:
            end -= 1
        text = "\n".join(plain_lines(self._rest[:end].decode("utf-8", "replace")))
        cut = self._masker.cut(text)
        self._rest = text[cut:].encode("utf-8", "replace") + self._rest[end:]
        if cut:
            await self._deliver(self._masker.lines(text[:cut]))

    async def _hand_on(self, text: bytes) -> None:
        await self._deliver(self._masker.lines(text.decode("utf-8", "replace")))


def _opened(path: Path) -> BinaryIO | None:
    """The file, opened for reading; None if it does not exist. A link that a model has put there is not followed."""
    try:
        number = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(number).st_mode):
        return os.fdopen(number, "rb", buffering=0)
    os.close(number)
    return None


def _punch(number: int, end: int) -> bool:
    """Free a file's disk space up to ``end``, but keep its size. False where that is not supported."""
    try:
        done = ctypes.CDLL(None, use_errno=True).fallocate(number, _PUNCH_HOLE, ctypes.c_int64(0), ctypes.c_int64(end))
    except (OSError, AttributeError):
        return False
    return bool(done == 0)
