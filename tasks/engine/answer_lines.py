"""The answer lines of one table, in row order, in whatever order they arrive."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Sequence

from tasks.domain.answer import error_line

BLOCK = 1 << 22
"""Size in bytes from which lines are closed into a piece."""


class Answers:
    """The lines of a table. Those already in order are kept in pieces of text, without overhead per line.

    Pieces that are mostly failures are compressed: millions of rows that cannot be converted have nearly equal lines.
    """

    def __init__(self) -> None:
        self._pieces: list[tuple[bool, bytes]] = []
        self._text = bytearray()
        self._failed_bytes = 0
        self._next = 1
        self._early: dict[int, tuple[int, bytes]] = {}
        """Number and lines of consecutive rows, without the last line break, by their first row."""
        self._first_failure: tuple[int, str] | None = None
        self._moved = asyncio.Event()
        self.failed = 0
        self._closed_bytes = 0
        self.waiting = 0
        """Number of lines that wait for the line of an earlier row."""

    def add(self, row: int, line: bytes) -> None:
        """Add the answer to a row, by its number."""
        self._take(row, 1, line)

    def add_all(self, rows: Sequence[int], lines: Sequence[bytes]) -> None:
        """Add the answers to some rows, in order."""
        if not rows:
            return
        if rows[-1] - rows[0] == len(rows) - 1:
            self._take(rows[0], len(rows), b"\n".join(lines))
        else:
            for row, line in zip(rows, lines, strict=True):
                self._take(row, 1, line)

    def fail_all(self, failures: Sequence[tuple[int, str]]) -> None:
        """Add the failures of some rows, in order."""
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
        """Wait until a line arrives that others may have waited for."""
        self._moved.clear()
        await self._moved.wait()

    @property
    def size(self) -> int:
        """Size of the result file in bytes."""
        return self._closed_bytes + len(self._text)

    @property
    def rows(self) -> int:
        """Number of rows that have their line."""
        return self._next - 1 + self.waiting

    def first_failure(self) -> str:
        """The first failed row, in row order, and the cause."""
        assert self._first_failure is not None
        return f"row {self._first_failure[0]}: {self._first_failure[1]}"

    def pieces(self) -> Iterator[bytes]:
        """The result file, piece by piece."""
        for compressed, piece in self._pieces:
            yield zlib.decompress(piece) if compressed else piece
        yield bytes(self._text)

    def result(self) -> bytes:
        """The whole result file."""
        return b"".join(self.pieces())
