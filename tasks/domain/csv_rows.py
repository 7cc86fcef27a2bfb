"""CSV text in: the rows of one item, as RFC 4180 has them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from tasks.domain.errors import ContentError

# Han ideographs (Unicode blocks CJK Unified Ideographs with extensions A-H, compatibility, iteration marks, radicals).
_CHINESE = re.compile(
    "[\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)
_LARGEST_CELL = (1 << 31) - 1


class Row(NamedTuple):
    """One CSV record: its number (from 1), its line in the file (from 1), its cells."""

    number: int
    line: int
    cells: Sequence[str]


def csv_text(data: bytes) -> str:
    """The text of a CSV item, without byte order mark.

    Raises ContentError with line and column (both from 1, the column in characters) if it is not UTF-8, or has a
    Chinese character.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # error.object, not data: offsets count from behind a byte order mark.
        before = error.object[: error.start].decode("utf-8", "replace")
        line, column = _position(before, len(before))
        byte = f"0x{error.object[error.start]:02X}"
        raise ContentError(
            f"line {line}, column {column}: byte {byte} is not UTF-8; a CSV file should be UTF-8."
        ) from None
    if not text.isascii() and (match := _CHINESE.search(text)) is not None:
        line, column = _position(text, match.start())
        raise ContentError(
            f"line {line}, column {column}: the Chinese character {match[0]!r}; a CSV file should have none."
        )
    return text


def _position(text: str, offset: int) -> tuple[int, int]:
    lines = text[:offset].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return len(lines), len(lines[-1]) + 1


class RowBatch(NamedTuple):
    """Rows that follow each other: the number of the first, the line of each in the file, the cells of each."""

    first: int
    lines: Sequence[int]
    cells: Sequence[Sequence[str]]


class RowReader:
    """The rows of a CSV text, many at a time; as :func:`csv_rows`, in a third of the time where every row is a line."""

    def __init__(self, text: str, *, header: bool) -> None:
        self._plain = not ('"' in text or "\r" in text or "\n\n" in text or text.startswith("\n"))
        self._text = text
        self._header = header
        self._next = 1
        self._reader: Iterator[Any] = _reader(text) if self._plain else csv_rows(text, header=header)
        if self._plain and header:
            next(self._reader, None)

    def count(self) -> int:
        """How many rows there are. Raises ContentError if the text is broken."""
        if self._plain:
            lines = self._text.count("\n") + (not self._text.endswith("\n")) if self._text else 0
            return max(0, lines - self._header)
        return sum(1 for _ in csv_rows(self._text, header=self._header))

    def take(self, most: int) -> RowBatch | None:
        """The next rows; None if there are no more."""
        taken = list(islice(self._reader, most))
        if not taken:
            return None
        first, self._next = self._next, self._next + len(taken)
        if self._plain:
            return RowBatch(first, range(first + self._header, self._next + self._header), taken)
        return RowBatch(first, [row.line for row in taken], [row.cells for row in taken])


def _reader(text: str) -> Any:
    if csv.field_size_limit() < _LARGEST_CELL:
        csv.field_size_limit(_LARGEST_CELL)  # an item is bounded as a whole
    return csv.reader(io.StringIO(text, newline=""), strict=True)


def csv_rows(text: str, *, header: bool) -> Iterator[Row]:
    """The records of a CSV text (RFC 4180; commas, quotes doubled inside quotes), without blank lines and header.

    Line breaks may be CRLF, LF or CR, also inside quotes; the last line needs none. Raises ContentError, with the line,
    for a quote that is never closed or that text follows.
    """
    reader = _reader(text)
    number = 0
    skip = header
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ContentError(f"line {line}: broken CSV, {_csv_fault(str(error))}.") from None
        if not cells:
            continue
        if skip:
            skip = False
            continue
        number += 1
        yield Row(number, line, cells)


def _csv_fault(said: str) -> str:
    if "unexpected end of data" in said:
        return "a quoted cell is never closed"
    if "expected after" in said:
        return "text follows a closing quote; a quote inside a quoted cell is written twice"
    return said
