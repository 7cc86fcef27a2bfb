"""Reading CSV text: the rows of one item, by RFC 4180."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from tasks.domain.errors import ContentError
from tasks.domain.file_kinds import encoding_of, other_kind

# Han ideographs (Unicode blocks CJK Unified Ideographs with extensions A-H, compatibility, iteration marks, radicals).
_CHINESE = re.compile(
    "[\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)
_LARGEST_CELL = (1 << 31) - 1
_MARK = "\ufeff"
_CHUNK = 1 << 16
"""Characters that are split into lines at once."""
_STEP = 1000
"""Rows counted between two points at which the caller may do other work."""

# Possessive, so that a cell of millions of quotes needs no stack. A line break may be CRLF, LF or CR.
_QUOTED = r'"(?:[^"]++|"")*+"'
_END = r"(?:\r\n|\n|\r|\Z)"
_BREAKS = re.compile(r"[\r\n]++")
_PLAIN = re.compile(rf'([^"\r\n]++){_END}')
_RECORD = re.compile(rf'((?:{_QUOTED}|[^",\r\n]*+)(?:,(?:{_QUOTED}|[^",\r\n]*+))*+){_END}')
# The same for records with faults: text after a closing quote, quotes inside an unquoted cell.
_LOOSE_CELL = re.compile(rf'({_QUOTED})([^,\r\n]*+)|((?!")[^,\r\n]*+)')
_LOOSE = rf'(?:{_QUOTED}[^,\r\n]*+|(?!")[^,\r\n]*+)'
_LOOSE_RECORD = re.compile(rf"({_LOOSE}(?:,{_LOOSE})*+){_END}")
_GOOD_CELLS = re.compile(rf'(?:(?:{_QUOTED}|[^",\r\n]*+),)*+')
_QUOTES = re.compile(r'"++')
_OPENS = re.compile(r"(?:\A|[,\r\n\ufeff])[^\S\r\n]*\Z")
_CLOSES = re.compile(r"[^\S\r\n]*+(?:[,\r\n]|\Z)")
_FAR = 64
"""Blanks before a quote that are examined to decide whether it opens a cell."""
_MANY = 10_000
"""Quotes, or cells of one row, that are examined to find the end of a row with a fault."""

_AFTER_QUOTE = "has text behind its closing quote"
_INSIDE = "has a quote but does not begin with one"
_RIGHT = "; a cell with quotes should stand in quotes, with each quote inside it written twice"


class Fault(NamedTuple):
    """A fault of a row as such: the column (from 0), its text, and the problem.

    ``value`` is None if the row has no such column.
    """

    column: int
    value: str | None
    problem: str


class RowBatch(NamedTuple):
    """Consecutive rows: the number of the first, the line of each in the file, the cells of each.

    ``faults`` has the faults of rows that should not be sent, by their positions in the batch.
    """

    first: int
    lines: Sequence[int]
    cells: Sequence[Sequence[str]]
    faults: Mapping[int, Fault]


class _Record(NamedTuple):
    line: int
    cells: Sequence[str]
    fault: Fault | None


def csv_text(data: bytes, *, chinese: bool = False) -> str:
    """The text of a CSV item, without byte order mark.

    Raises ContentError if it is a file of another kind, is not UTF-8, or has a Chinese character and ``chinese`` is
    false. The latter two name line and column (both from 1, the column in characters).
    """
    if kind := other_kind(data):
        raise ContentError(f"The file is {kind}; a CSV file should be plain text in UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # error.object, not data: offsets count from after a byte order mark.
        before = error.object[: error.start].decode("utf-8", "replace")
        line, column = _position(before, len(before))
        byte = f"0x{error.object[error.start]:02X}"
        encoding = encoding_of(data)
        hint = f" It looks like text in {encoding}: save it as UTF-8." if encoding else ""
        raise ContentError(
            f"line {line}, column {column}: byte {byte} is not UTF-8; a CSV file should be UTF-8.{hint}"
        ) from None
    if not chinese and not text.isascii() and (match := _CHINESE.search(text)) is not None:
        line, column = _position(text, match.start())
        raise ContentError(
            f"line {line}, column {column}: the Chinese character {match[0]!r}; a CSV file should have none, unless "
            "the administrator allows them (THRESHER_CHINESE=allow)."
        )
    return text


def _position(text: str, offset: int) -> tuple[int, int]:
    start = max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1
    return _breaks(text, 0, offset) + 1, offset - start + 1


def _breaks(text: str, start: int, end: int) -> int:
    """Line breaks in a part of a text that does not end inside CRLF."""
    return text.count("\n", start, end) + text.count("\r", start, end) - text.count("\r\n", start, end)


class RowReader:
    """The rows of a CSV text (commas, quotes doubled inside quotes), without blank lines and header.

    Line breaks may be CRLF, LF or CR, also inside quotes; the last line needs none. A byte order mark at the beginning
    of a line, left by concatenated files, is not part of its first cell. Only the row fails (``faults``) if its width
    differs from that of the first record (header included), a quote is inside a cell that does not begin with one, or
    text follows a closing quote. The whole text is broken if such a fault makes it uncertain on which line the row
    ends, or if a quoted cell is never closed. A first row of fewer than ``needed`` columns does not set the width.
    """

    def __init__(self, text: str, *, header: bool, needed: int = 1) -> None:
        if '"' not in text and "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        self._text = text
        self._header = header
        self._needed = needed
        # Lines without quotes are split at commas: 0.25 us a row instead of 1.9 us, where all else that is done here
        # for a row among many takes 1.5 us.
        self._plain = not (
            '"' in text or "\r" in text or "\n\n" in text or text.startswith(("\n", _MARK)) or f"\n{_MARK}" in text
        )
        self.count = -1
        """The number of rows; -1 until :meth:`scan` has counted them."""
        self.size = len(text)
        self.rewind()

    def rewind(self) -> None:
        """Begin with the first row again."""
        self._next = 1
        self._width = 0
        self._lines = self._plain_lines()
        self._records = self._all_records()
        if self._header and self._plain:  # otherwise the generator of records skips it, which may raise
            for line in islice(self._lines, 1):
                self._width = line.count(",") + 1

    def names(self) -> Sequence[str]:
        """The header's cells; empty if it has a fault or is missing. Raises ContentError, as rows do."""
        if not self._header:
            return ()
        record = next(self._all_records(skip=False), None)
        return () if record is None or record.fault else record.cells

    def scan(self) -> Iterator[None]:
        """Count the rows; yields from time to time, so that the caller may do other work.

        Raises ContentError, with the line, if the text is broken.
        """
        if self._plain:
            lines = self._text.count("\n") + (not self._text.endswith("\n")) if self._text else 0
            self.count = max(0, lines - self._header)
            return
        count = 0
        for count, _ in enumerate(self._all_records(cells=False), 1):
            if count % _STEP == 0:
                yield
        self.count = count

    def take(self, most: int) -> RowBatch | None:
        """The next rows; None if there are no more. Raises ContentError where the text is broken."""
        if self._plain:
            cells = [line.split(",") for line in islice(self._lines, most)]
            first = self._begin(len(cells))
            lines: Sequence[int] = range(first + self._header, self._next + self._header)
            faults: dict[int, Fault] = {}
        else:
            taken = list(islice(self._records, most))
            cells = [record.cells for record in taken]  # type: ignore[misc]
            first = self._begin(len(cells))
            lines = [record.line for record in taken]
            faults = {at: record.fault for at, record in enumerate(taken) if record.fault is not None}
        if not cells:
            return None
        widths = {*map(len, cells)}
        if widths != {self._width}:
            if not self._width:
                enough = (len(row) for at, row in enumerate(cells) if at not in faults and len(row) >= self._needed)
                self._width = next(enough, 0)
            if widths != {self._width}:
                faults |= self._uneven(cells, faults)
        return RowBatch(first, lines, cells, faults)

    def _begin(self, rows: int) -> int:
        first, self._next = self._next, self._next + rows
        return first

    def _uneven(self, cells: Sequence[Sequence[str]], faults: Mapping[int, Fault]) -> dict[int, Fault]:
        width = self._width
        found = {}
        for at, row in enumerate(cells):
            if len(row) == width or at in faults or not width:
                continue
            have = f"the row has {len(row)} columns, the first one of the file has {width}"
            if len(row) > width:
                hint = "a cell that holds a comma should stand in quotes"
                found[at] = Fault(width, row[width], f"is one too many: {have}; {hint}")
            else:
                found[at] = Fault(len(row), None, f"{have} (columns are counted from 0)")
        return found

    def _plain_lines(self) -> Iterator[str]:
        text, start = self._text, 0
        while start < len(text):
            end = text.find("\n", start + _CHUNK)
            if end < 0:
                end = len(text) - text.endswith("\n")
            yield from text[start:end].split("\n")
            start = end + 1

    def _all_records(self, *, cells: bool = True, skip: bool | None = None) -> Iterator[_Record]:
        """Every record except the header, from the beginning of the text; without ``cells`` for counting only."""
        skip = self._header if skip is None else skip
        text, at, line = self._text, 0, 1
        record: list[str] = []
        reader = csv.reader(iter(record.pop, None), strict=True)  # splits the quoted record put into ``record``
        if csv.field_size_limit() < _LARGEST_CELL:
            csv.field_size_limit(_LARGEST_CELL)  # an item is bounded as a whole
        while at < len(text):
            if (match := _BREAKS.match(text, at)) is not None:
                line += _breaks(text, at, match.end())
                at = match.end()
                continue
            if text[at] == _MARK:
                at += 1
                continue
            found: Sequence[str] = ()
            fault = None
            if (match := _PLAIN.match(text, at)) is not None:
                if cells or skip:
                    found = match[1].split(",")
                following = line + 1
            elif (match := _RECORD.match(text, at)) is not None:
                if cells or skip:
                    record.append(match[1])
                    found = next(reader)
                following = line + 1 + _breaks(text, at, match.end(1))
            else:
                match = _loose(text, at, line)
                fault = _faulty(text, match, line)
                following = line + 1 + _breaks(text, at, match.end(1))
            at = match.end()
            if skip:
                skip = False
                if cells and fault is None:
                    self._width = len(found)
            else:
                yield _Record(line, found, fault)
            line = following


def _loose(text: str, at: int, line: int) -> re.Match[str]:
    """The record with faults at a position. Raises ContentError if one of its quoted cells is never closed."""
    match = _LOOSE_RECORD.match(text, at)
    if match is None:
        raise ContentError(f"line {line}: broken CSV, a quoted cell is never closed.")
    return match


def _faulty(text: str, record: re.Match[str], line: int) -> Fault:
    """The first fault of a record that has one.

    Raises ContentError if the end of the record is uncertain. A fault can be read in two ways. Either the cell goes on
    to the next comma, and the record to the end of its line. Or the quote before it was meant to open a quoted cell
    (blanks before it), or was one inside a quoted cell, which then goes on to a quote followed by a comma or the end of
    a line. The second way is impossible if a quote that opens a cell comes first, or if no quote follows.
    """
    at, end = record.span(1)
    good = _GOOD_CELLS.match(text, at, end)
    assert good is not None
    column = sum(map(len, csv.reader([good[0]], strict=True))) - 1 if good[0] else 0
    at = good.end()
    fault: Fault | None = None
    for cells in range(_MANY):
        cell = _LOOSE_CELL.match(text, at, end)
        assert cell is not None
        quoted, after, unquoted = cell.groups()
        problem = ""
        goes_on = -1  # from where the cell would, read the second way
        if quoted is not None and after:
            problem, goes_on = _AFTER_QUOTE, cell.end(1)
            sure = "\n" not in quoted and "\r" not in quoted
        elif quoted is None and '"' in unquoted:
            problem, sure = _INSIDE, True
            before = unquoted.index('"')
            if not unquoted[:before].strip():
                goes_on = at + before + 1
        if problem:
            fault = fault or Fault(column + cells, cell[0], problem + _RIGHT)
            if not sure or (goes_on >= 0 and _closing(text, goes_on) > end):
                raise ContentError(
                    f"line {line}, column {column + cells}: broken CSV, a cell {problem}, and it is not certain on "
                    f"which line its row ends{_RIGHT}."
                )
        at = cell.end() + 1
        if at > end:
            assert fault is not None
            return fault
    raise ContentError(f"line {line}, column {column}: broken CSV, a cell {fault and fault.problem}.")


def _closing(text: str, at: int) -> int:
    """Where a quoted cell open at a position would be closed; -1 if a quote that opens one comes first, or no quote."""
    for quotes in islice(_QUOTES.finditer(text, at), _MANY):
        start, end = quotes.span()
        if _OPENS.search(text[max(0, start - _FAR) : start]) is not None:
            return -1
        if (end - start) % 2 and _CLOSES.match(text, end) is not None:
            return start
    return -1
