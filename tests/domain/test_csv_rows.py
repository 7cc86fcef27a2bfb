"""CSV rows in."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.csv_rows import Fault, RowReader, csv_text
from tasks.domain.errors import ContentError, RowError
from tasks.domain.mapping import Mapping


class Row(NamedTuple):
    """One CSV record: its number (from 1), its line in the file (from 1), its cells, and what is wrong with it."""

    number: int
    line: int
    cells: Sequence[str]
    fault: Fault | None


def batches(text: str, size: int, *, header: bool) -> list[Row]:
    """All rows, read many at a time, after they were counted."""
    reader = RowReader(text, header=header)
    for _ in reader.scan():
        pass
    found: list[Row] = []
    while (batch := reader.take(size)) is not None:
        assert 1 <= len(batch.cells) == len(batch.lines) <= size
        numbers = range(batch.first, batch.first + len(batch.cells))
        found += map(Row, numbers, batch.lines, batch.cells, map(batch.faults.get, range(len(batch.cells))))
    assert len(found) == reader.count
    return found


def rows(data: bytes, *, header: bool = False) -> list[list[str]]:
    """The cells of the rows of which none has a fault."""
    found = batches(csv_text(data), 100, header=header)
    assert not [row for row in found if row.fault]
    return [list(row.cells) for row in found]


def faults(text: str, *, header: bool = False) -> list[Fault | None]:
    """What is wrong with each row."""
    return [row.fault for row in batches(text, 3, header=header)]


def lines(data: bytes, *, header: bool = False) -> list[tuple[int, int]]:
    """Number and line of every row."""
    return [(row.number, row.line) for row in batches(csv_text(data), 2, header=header)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []), (b"\n", []), (b"\r\n\r\n\n", []), (b"\xef\xbb\xbf", []), (b"\xef\xbb\xbf\r\n", []),
        (b"1,2\n3,4\n", [["1", "2"], ["3", "4"]]),
        (b"1,2\n3,4", [["1", "2"], ["3", "4"]]),
        (b"1,2\r\n3,4\r\n", [["1", "2"], ["3", "4"]]),
        (b"1,2\r3,4\r", [["1", "2"], ["3", "4"]]),
        (b"1,2\r3,4\r\n5,6\n7,8", [["1", "2"], ["3", "4"], ["5", "6"], ["7", "8"]]),
        (b"\xef\xbb\xbf1,2\n", [["1", "2"]]),
        (b"\n1,2\n\n\n3,4\n\n", [["1", "2"], ["3", "4"]]),
        (b'"a,b",c\n', [["a,b", "c"]]),
        (b'"a\nb",c\nd,e\n', [["a\nb", "c"], ["d", "e"]]),
        (b'"a\r\nb","c\rd"\r\n', [["a\r\nb", "c\rd"]]),
        (b'"say ""x""",""\n', [['say "x"', ""]]),
        (b",\n", [["", ""]]), (b'""\n', [[""]]), (b" \n", [[" "]]), (b"a,\n", [["a", ""]]),
        (b" 1 , 2 \n", [[" 1 ", " 2 "]]),
        (b"a;b\tc\n", [["a;b\tc"]]),
        (b"a\\,b\n", [["a\\", "b"]]),
        (b"a\x00b,c\n", [["a\x00b", "c"]]),
        ("naïve,größe,😀,ñ,кот,한국,ひらがな,カナ\n".encode(),
        [["naïve", "größe", "😀", "ñ", "кот", "한국", "ひらがな", "カナ"]]),
        ("a\u2028b,c\x0bd\x0c\x85e\n".encode(), [["a\u2028b", "c\x0bd\x0c\x85e"]]),
        ("\ufeff1,2\n\ufeff3,4\r\n\ufeff\"5\",6\n7,\ufeff8\n\ufeff".encode(),
        [["1", "2"], ["3", "4"], ["5", "6"], ["7", "\ufeff8"]]),
        ("\ufeff\ufeff1,2\n3,4\n".encode(), [["1", "2"], ["3", "4"]]), ("\ufeff\ufeff\n1,2\n".encode(), [["1", "2"]]),
    ],
)  # fmt: skip
def test_csv__gives_the_cells_as_they_are(data: bytes, expected: list[list[str]]) -> None:
    assert rows(data) == expected


def test_csv__a_row_knows_its_number_and_the_line_where_it_begins() -> None:
    data = b'\n1,2\n\n"a\nb\r\nc",3\r4,5'
    assert lines(data) == [(1, 2), (2, 4), (3, 7)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a,b\n1,2\n", [["1", "2"]]), (b"\n\na,b\n1,2\n", [["1", "2"]]), (b'"a\nb",c\n1,2\n', [["1", "2"]]),
        (b"a,b\n", []), (b"a,b", []), (b"", []), (b"\xef\xbb\xbfa,b\r\n1,2", [["1", "2"]]),
    ],
)  # fmt: skip
def test_csv__a_header_is_passed_over(data: bytes, expected: list[list[str]]) -> None:
    assert rows(data, header=True) == expected


def test_csv__rows_behind_a_header_are_counted_from_1_and_lines_from_the_files_first() -> None:
    assert lines(b"a\n\n1\n2\n", header=True) == [(1, 3), (2, 4)]


@pytest.mark.parametrize(
    ("data", "line", "fault"),
    [
        (b'1,2\n"a,b\nc,d\n', 2, "a quoted cell is never closed"),
        (b'"', 1, "a quoted cell is never closed"),
        (
            b'x,y\n"a\nb"c,1\n',
            2,
            "column 0: broken CSV, a cell has text behind its closing quote, and it is not certain",
        ),
        (b'1,2\n"5" tall\n2,3\nrest",3\n', 2, "column 0: broken CSV, a cell has text behind its closing quote"),
        (b'1,2\n4, "red\n5,6\n dark"\n', 2, "column 1: broken CSV, a cell has a quote but does not begin with one"),
    ],
)
def test_csv__a_broken_file_is_refused_with_its_line(data: bytes, line: int, fault: str) -> None:
    with pytest.raises(ContentError) as caught:
        rows(data)
    broken = f": broken CSV, {fault}" if not fault.startswith("column") else f", {fault}"
    assert str(caught.value).startswith(f"line {line}{broken}")


WIDE = (
    "is one too many: the row has {} columns, the first one of the file has {}; "
    "a cell that holds a comma should stand in quotes"
)
NARROW = "the row has {} columns, the first one of the file has {} (columns are counted from 0)"
QUOTES = "; a cell with quotes should stand in quotes, with each quote inside it written twice"
INSIDE = f"has a quote but does not begin with one{QUOTES}"
BEHIND = f"has text behind its closing quote{QUOTES}"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (["1,2", "3,4,5", "6,7"], {1: Fault(2, "5", WIDE.format(3, 2))}),
        (["1,2", "3", "6,7"], {1: Fault(1, None, NARROW.format(1, 2))}),
        (["1,2,", "3,4,", "5,6"], {2: Fault(2, None, NARROW.format(2, 3))}),
        (["1,2", '3,"4",', '"5","6,7"'], {1: Fault(2, "", WIDE.format(3, 2))}),
        (['1, "a, b"', '2, "c"', "3,d"], {0: Fault(1, ' "a', INSIDE), 1: Fault(1, ' "c"', INSIDE)}),
        (["1,2", '3,5"', '6,4"', '"7",8'], {1: Fault(1, '5"', INSIDE), 2: Fault(1, '4"', INSIDE)}),
        (["1,2", '"a"b,3', '"x",4', "5,6"], {1: Fault(0, '"a"b', BEHIND)}),
        (["1,2", '"a" ,3', "5,6"], {1: Fault(0, '"a" ', BEHIND)}),
        (["1,2", '"say "x" now",3', "5,6"], {1: Fault(0, '"say "x" now"', BEHIND)}),
        (["1,2", '3,"two', 'lines",x"y', "5,6"], {1: Fault(2, 'x"y', INSIDE)}),
        (["1,2", "'red, dark',3", "5,6"], {1: Fault(2, "3", WIDE.format(3, 2))}),
        (["1,2", "green\\, with comma,3"], {1: Fault(2, "3", WIDE.format(3, 2))}),
        (["1", " "], {}),
    ],
)  # fmt: skip
def test_csv__a_row_with_a_fault_fails_alone(table: list[str], expected: dict[int, Fault], ending: str) -> None:
    found = faults(ending.join(table))
    assert {at: fault for at, fault in enumerate(found) if fault is not None} == expected


def test_csv__a_header_gives_the_width() -> None:
    assert [fault and fault.column for fault in faults("a,b\n1,2,3\n4,5\n", header=True)] == [2, None]
    assert [fault and fault.column for fault in faults('"a",b\n1,2,3\n4,5\n', header=True)] == [2, None]
    assert faults('a "x",b\n1,2,3\n4,5,6\n', header=True) == [None, None]  # a broken one gives none


def test_csv__rows_after_a_fault_keep_their_numbers_and_lines() -> None:
    found = batches('1,2\n3,"a\nb",c"\n\n4,5\n', 10, header=False)
    assert [(row.number, row.line, row.fault is None) for row in found] == [(1, 1, True), (2, 2, False), (3, 5, True)]


@given(
    st.lists(st.text(st.sampled_from('a1 ,"\n'), max_size=12), max_size=8), st.integers(0, 8),
    st.sampled_from([' "x', '"x"y', 'x"', '"x" ', "x,y", "'x,y'"]),
)  # fmt: skip
def test_csv__a_fault_never_changes_the_cells_of_a_row_that_is_right(cells: list[str], place: int, fault: str) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    good = [[cell, "1"] for cell in cells]
    for at, row in enumerate(good):
        if at == place:
            buffer.write(f"{fault},1\n")
        writer.writerow(row)
    try:
        found = batches(buffer.getvalue(), 3, header=False)
    except ContentError:
        return
    wrong = [row.cells for row in found if row.fault is None and [*row.cells] not in good]
    assert not wrong or (place == 0 and fault in ("x,y", "'x,y'"))  # then the first row gives its width


@pytest.mark.parametrize(
    ("text", "line", "column", "sign"),
    [
        ("中", 1, 1, "中"), ("1,2\n3,中文\n", 2, 3, "中"), ("1\r\n2\r\nab文", 3, 3, "文"), ("1\r2\r中", 3, 1, "中"),
        ("é😀,漢\n", 1, 4, "漢"), ("\ufeffa,中", 1, 3, "中"), ("a\n\n\n𠀀", 4, 1, "𠀀"), ("㐀", 1, 1, "㐀"),
        ("豈", 1, 1, "豈"), ("〇", 1, 1, "〇"), ('"a\n中"', 2, 1, "中"),
    ],
)  # fmt: skip
def test_csv__a_chinese_character_is_refused_with_line_and_column(text: str, line: int, column: int, sign: str) -> None:
    with pytest.raises(ContentError) as caught:
        csv_text(text.encode())
    assert str(caught.value).startswith(f"line {line}, column {column}: the Chinese character '{sign}'")


@pytest.mark.parametrize(
    ("data", "line", "column", "byte"),
    [
        (b"\xe9", 1, 1, "E9"), (b"1,2\ncaf\xe9,3\n", 2, 4, "E9"), (b"1\r\n2\r\n3,\xff", 3, 3, "FF"),
        (b"1\r\xe9", 2, 1, "E9"),
        ("é😀,".encode() + b"\xe9\n", 1, 4, "E9"), (b"\xef\xbb\xbfab,\xe9x\n", 1, 4, "E9"),
        (b"\xef\xbb\xbf1\n\xff", 2, 1, "FF"), (b"a,\xe4\xb8", 1, 3, "E4"), (b"\xff1\x00", 1, 1, "FF"),
        (b"a\xc0\xaf", 1, 2, "C0"), (b"\xed\xa0\x80", 1, 1, "ED"),
    ],
)  # fmt: skip
def test_csv__a_byte_that_is_not_utf8_is_refused_with_line_and_column(
    data: bytes, line: int, column: int, byte: str
) -> None:
    with pytest.raises(ContentError) as caught:
        csv_text(data)
    assert str(caught.value).startswith(f"line {line}, column {column}: byte 0x{byte} is not UTF-8")


def test_csv__a_row_without_the_column_of_a_field_fails() -> None:
    mapping = Mapping({"type": "object", "properties": {"x": {"type": "number", "index": 1}}})
    (row,) = batches("3\n", 2, header=False)
    with pytest.raises(RowError, match="line 1, column 1, field x: the row has 1 columns only"):
        mapping.body(row.cells, row.line)


def test_csv__12_mib_are_read_row_by_row() -> None:
    row = b"5.1,3.5,1.4,0.2\n"
    count = (12 << 20) // len(row)
    reader = RowReader(csv_text(row * count), header=False)
    batch = reader.take(1)
    assert batch is not None and [*batch.cells] == [["5.1", "3.5", "1.4", "0.2"]]
    assert sum(len(more.cells) for more in iter(lambda: reader.take(1000), None)) == count - 1


def test_csv__one_cell_may_fill_the_whole_file() -> None:
    ((cell,),) = rows(b'"' + b"x\n" * (6 << 20) + b'"')
    assert len(cell) == 12 << 20


cells = st.text(st.sampled_from('ab1.,"\n\r é\t;😀'), max_size=6)


@given(
    st.lists(st.lists(cells, min_size=1, max_size=4), max_size=6), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans()
)
def test_csv__what_a_csv_writer_writes_is_read_back(table: list[list[str]], ending: str, marked: bool) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator=ending, quoting=csv.QUOTE_ALL).writerows(table)
    data = (b"\xef\xbb\xbf" if marked else b"") + buffer.getvalue().encode()
    found = batches(csv_text(data), 3, header=False)
    assert [[*row.cells] for row in found] == table
    assert [row.fault is None for row in found] == [len(row) == len(table[0]) for row in table]
    assert [number for number, _ in lines(data)] == list(range(1, len(table) + 1))


@given(st.binary(max_size=80))
def test_csv__any_bytes_are_rows_or_refused_in_a_line(data: bytes) -> None:
    fault = ""
    found: list[Row] = []
    try:
        found = batches(csv_text(data), 5, header=False)
    except ContentError as error:
        fault = str(error)
    assert fault == "" or fault.startswith(("line ", "The file is "))
    assert all(row.cells or row.fault for row in found)


@given(
    st.text(alphabet="a1 ,\"\r\n\u2028\x00\x0b\ufeff", max_size=40) | st.text(alphabet="a1 ,\n", max_size=60),
    st.integers(1, 5), st.booleans(),
)  # fmt: skip
def test_rows__read_many_at_a_time_are_the_same(text: str, size: int, header: bool) -> None:
    try:
        expected = batches(text, 1000, header=header)
    except ContentError as error:
        with pytest.raises(ContentError, match=re.escape(str(error))):
            [*RowReader(text, header=header).scan()]
        return
    assert batches(text, size, header=header) == expected


@given(st.text(alphabet='a1 ,"\r\n', max_size=40))
def test_rows__that_are_right_are_those_of_pythons_reader(text: str) -> None:
    try:
        found = batches(text, 7, header=False)
    except ContentError:
        return
    if any(row.fault for row in found):
        return
    assert [list(row.cells) for row in found] == [cells for cells in csv.reader(io.StringIO(text, newline="")) if cells]


def test_csv__a_first_row_without_the_columns_that_are_needed_gives_no_width() -> None:
    reader = RowReader("title\n1,2\n3\n4,5\n", header=False, needed=2)
    batch = reader.take(10)
    assert batch is not None
    assert {at: fault.column for at, fault in batch.faults.items()} == {0: 1, 2: 1}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (gzip.compress(b"1,2\n", mtime=0), "packed by gzip"), (bz2.compress(b"1,2\n"), "packed by bzip2"),
        (lzma.compress(b"1,2\n"), "packed by xz"), (b"PK\x03\x04...", "a zip archive, or an Excel file"),
        ("1,2\n".encode("utf-16"), "text in UTF-16"), ("1,2\n".encode("utf-16-le"), "text in UTF-16"),
        ("1,2\n".encode("utf-16-be"), "text in UTF-16 (big-endian)"), ("1,2\n".encode("utf-32"), "text in UTF-32"),
        (b"PAR1", "a Parquet file"), (b"\n <!DOCTYPE html><html>", "an HTML page, perhaps one to sign in"),
    ],
)  # fmt: skip
def test_csv_text__of_another_kind_says_which(data: bytes, kind: str) -> None:
    with pytest.raises(ContentError) as raised:
        csv_text(data)
    assert f"The file is {kind}; a CSV file should be plain text in UTF-8." in str(raised.value)


@pytest.mark.parametrize("text", ["", "1", "1,2\n", "BZ,1\n", "<a>,1\n", "PAR,1", "PK,2", "a\0,1\n"])
def test_csv_text__of_rows_is_none_of_these(text: str) -> None:
    assert csv_text(text.encode()) == text
