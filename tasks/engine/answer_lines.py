"""The answer lines of one table, in row order, however they come in."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Sequence

from tasks.domain.answer import error_line

BLOCK = 1 << 22
"""Bytes of lines that are kept as one piece."""


class Answers:
    """What is in order already is kept in pieces of text, so that a line costs its own bytes only.

    Pieces of mostly failures are kept compressed: millions of rows that cannot be converted all say nearly the same.
    """

    def __init__(self) -> None:
        self._pieces: list[tuple[bool, bytes]] = []
        self._text = bytearray()
        self._failed_bytes = 0
        self._next = 1
        self._early: dict[int, tuple[int, bytes]] = {}
        """By the first row: lines of rows that follow each other, without the last line break, and how many."""
        self._first_failure: tuple[int, str] | None = None
        self._moved = asyncio.Event()
        self.failed = 0
        self._closed_bytes = 0
        self.waiting = 0
        """Lines that wait for that of an earlier row."""

    def add(self, row: int, line: bytes) -> None:
        """Take the answer to a row, by its number."""
        self._take(row, 1, line)

    def add_all(self, rows: Sequence[int], lines: Sequence[bytes]) -> None:
        """Take the answers to some rows, in order."""
        if not rows:
            return
        if rows[-1] - rows[0] == len(rows) - 1:
            self._take(rows[0], len(rows), b"\n".join(lines))
        else:
            for row, line in zip(rows, lines, strict=True):
                self._take(row, 1, line)

    def fail(self, row: int, message: str) -> None:
        """Take a row's failure."""
        self.fail_all([(row, message)])

    def fail_all(self, failures: Sequence[tuple[int, str]]) -> None:
        """Take the failures of some rows, in order."""
        if not failures:
            return
        self.failed += len(failures)
        if self._first_failure is None or failures[0][0] < self._first_failure[0]:
            self._first_failure = failures[0]
        lines = [error_line(message) for _, message in failures]
        self._failed_bytes += sum(map(len, lines))
        self.add_all([row for row, _ in failures], lines)

    def _take(self, row: int, count: int, lines: bytes) -> None:
        if row != self._next:
            self._early[row] = (count, lines)
            self.waiting += count
            return
        self._append(count, lines)
        while self._early and (ready := self._early.pop(self._next, None)) is not None:
            self.waiting -= ready[0]
            self._append(*ready)
        self._moved.set()

    def _append(self, count: int, lines: bytes) -> None:
        self._text += lines
        self._text += b"\n"
        self._next += count
        if len(self._text) >= BLOCK:
            self._close_piece()

    def _close_piece(self) -> None:
        self._closed_bytes += len(self._text)
        if self._failed_bytes * 2 > len(self._text):
            self._pieces.append((True, zlib.compress(self._text, 1)))
        else:
            self._pieces.append((False, bytes(self._text)))
        self._text = bytearray()
        self._failed_bytes = 0

    async def moved(self) -> None:
        """Wait until a line is there that others may have waited for."""
        self._moved.clear()
        await self._moved.wait()

    @property
    def size(self) -> int:
        """Bytes of the result file."""
        return self._closed_bytes + len(self._text)

    @property
    def rows(self) -> int:
        """Rows that have their line."""
        return self._next - 1 + self.waiting

    def first_failure(self) -> str:
        """The first failed row, in row order, and why."""
        assert self._first_failure is not None
        return f"row {self._first_failure[0]}: {self._first_failure[1]}"

    def pieces(self) -> Iterator[bytes]:
        """The result file, piece by piece."""
        for compressed, piece in self._pieces:
            yield zlib.decompress(piece) if compressed else piece
        yield bytes(self._text)

    def result(self) -> bytes:
        """The result file in one."""
        return b"".join(self.pieces())
