"""What a model server prints, line by line while it prints it, from the file that its output goes to."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tasks.domain.server_log import Masker

POLL_SECONDS = 0.2
READ_BYTES = 256 << 10
LINE_BYTES = 64 << 10
"""A line that grows beyond this is delivered in pieces."""
KEPT_BYTES = 16 << 20
"""A larger file is emptied once it was read, so that a talkative server does not fill the disk."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

Deliver = Callable[[Sequence[str]], Awaitable[None]]


class OutputFollower:
    """Follows one file from its start and delivers its lines, masked and fit for display, until it is closed.

    Whoever writes the file must append (O_APPEND), as the warden does. It need not exist yet. The next lines are read
    only when the last ones are delivered, so nothing piles up in memory.
    """

    def __init__(self, path: Path, masker: Masker, deliver: Deliver, kept_bytes: int = KEPT_BYTES) -> None:
        self._path = path
        self._masker = masker
        self._deliver = deliver
        self._kept_bytes = kept_bytes
        self._file: BinaryIO | None = None
        self._rest = b""
        self._closing = asyncio.Event()
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Deliver what is left; nothing is followed any more. Call it once the writer has ended."""
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
                await asyncio.wait_for(self._closing.wait(), POLL_SECONDS)
        if self._rest:
            await self._hand_on(self._rest)
            self._rest = b""

    async def _read_to_end(self) -> None:
        if self._file is None:
            try:
                self._file = open(self._path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
            except OSError:
                return
        while data := self._file.read(READ_BYTES):
            whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
            if newline:
                await self._hand_on(whole)
            if len(self._rest) > LINE_BYTES:
                await self._cut()
        position = self._file.tell()
        if position > self._kept_bytes and os.fstat(self._file.fileno()).st_size == position:
            with suppress(OSError):
                os.truncate(self._path, 0)
                self._file.seek(0)

    async def _cut(self) -> None:
        """Hand on the beginning of a very long line, but no part of a secret."""
        blank = self._masker.blank(self._rest)
        cut = len(blank) - self._masker.longest
        while 0 < cut < len(blank) and blank[cut - 1] == 0 and blank[cut] == 0:
            cut -= 1
        if cut > 0:
            head, self._rest = self._rest[:cut], self._rest[cut:]
            await self._hand_on(head)

    async def _hand_on(self, text: bytes) -> None:
        masked = self._masker.mask(text).decode("utf-8", "replace")
        await self._deliver([_displayed(line) for line in masked.split("\n")])


def _displayed(line: str) -> str:
    """A line without escapes and control characters; of a progress bar that overwrites itself, the last state."""
    return _CONTROL.sub("", _ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]))
