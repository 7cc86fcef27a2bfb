"""CSV rows in."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.csv_rows import Row, RowReader, csv_rows, csv_text
from tasks.domain.errors import ContentError, RowError
from tasks.domain.mapping import Mapping


def rows(data: bytes, *, header: bool = False) -> list[list[str]]:
    return [list(row.cells) for row in csv_rows(csv_text(data), header=header)]


def lines(data: bytes, *, header: bool = False) -> list[tuple[int, int]]:
    """Number and line of every row."""
    return [(row.number, row.line) for row in csv_rows(csv_text(data), header=header)]


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
        (b'a"b,c\n', [['a"b', "c"]]),
        (b",\n", [["", ""]]), (b'""\n', [[""]]), (b" \n", [[" "]]), (b"a,\n", [["a", ""]]),
        (b" 1 , 2 \n", [[" 1 ", " 2 "]]),
        (b"a;b\tc\n", [["a;b\tc"]]),
        (b"a\\,b\n", [["a\\", "b"]]),
        (b"a\x00b,c\n", [["a\x00b", "c"]]),
        ("naïve,größe,😀,ñ,кот,한국,ひらがな,カナ\n".encode(),
        [["naïve", "größe", "😀", "ñ", "кот", "한국", "ひらがな", "カナ"]]),
        ("a\u2028b,c\x0bd\x0c\x85e\n".encode(), [["a\u2028b", "c\x0bd\x0c\x85e"]]),
        (b"1\n1,2,3\n", [["1"], ["1", "2", "3"]]),
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
        (b'"a"b,c\n', 1, "text follows a closing quote"),
        (b'x\n\n"a" ,b\n', 3, "text follows a closing quote"),
        (b'"a\nb"c\n', 1, "text follows a closing quote"),
    ],
)
def test_csv__a_broken_file_is_refused_with_its_line(data: bytes, line: int, fault: str) -> None:
    with pytest.raises(ContentError) as caught:
        rows(data)
    assert str(caught.value).startswith(f"line {line}: broken CSV, {fault}")


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
        (b"\xef\xbb\xbf1\n\xff", 2, 1, "FF"), (b"a,\xe4\xb8", 1, 3, "E4"), (b"\xff\xfe1\x00", 1, 1, "FF"),
        (b"a\xc0\xaf", 1, 2, "C0"), (b"\xed\xa0\x80", 1, 1, "ED"),
    ],
)  # fmt: skip
def test_csv__a_byte_that_is_not_utf8_is_refused_with_line_and_column(
    data: bytes, line: int, column: int, byte: str
) -> None:
    with pytest.raises(ContentError) as caught:
        csv_text(data)
    assert str(caught.value).startswith(f"line {line}, column {column}: byte 0x{byte} is not UTF-8")


def test_csv__a_row_with_too_few_columns_fails_alone() -> None:
    mapping = Mapping({"type": "object", "properties": {"x": {"type": "number", "index": 1}}})
    first, second, third = csv_rows("1,2\n\n3\n4,5\n", header=False)
    assert mapping.body(first.cells, first.line) == b'{"x":2}'
    with pytest.raises(RowError, match="line 3, column 1, field x"):
        mapping.body(second.cells, second.line)
    assert mapping.body(third.cells, third.line) == b'{"x":5}'


def test_csv__12_mib_are_read_row_by_row() -> None:
    row = b"5.1,3.5,1.4,0.2\n"
    count = (12 << 20) // len(row)
    supply = csv_rows(csv_text(row * count), header=False)
    assert next(supply).cells == ["5.1", "3.5", "1.4", "0.2"]
    assert sum(1 for _ in supply) == count - 1


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
    assert rows(data) == table
    assert [number for number, _ in lines(data)] == list(range(1, len(table) + 1))


@given(st.binary(max_size=80))
def test_csv__any_bytes_are_rows_or_refused_with_a_line(data: bytes) -> None:
    fault = ""
    try:
        found = rows(data)
    except ContentError as error:
        found, fault = [], str(error)
    assert fault == "" or fault.startswith("line ")
    assert all(found)


def batches(text: str, size: int, *, header: bool) -> list[Row]:
    """All rows, read many at a time, as :func:`csv_rows` gives them."""
    reader = RowReader(text, header=header)
    found: list[Row] = []
    while (batch := reader.take(size)) is not None:
        assert 1 <= len(batch.cells) == len(batch.lines) <= size
        numbers = range(batch.first, batch.first + len(batch.cells))
        found += map(Row, numbers, batch.lines, batch.cells)
    return found


@given(
    st.text(alphabet="a1 ,\"\r\n\u2028\x00\x0b", max_size=40) | st.text(alphabet="a1 ,\n", max_size=60),
    st.integers(1, 5), st.booleans(),
)  # fmt: skip
def test_rows__read_many_at_a_time_are_the_same(text: str, size: int, header: bool) -> None:
    try:
        expected = list(csv_rows(text, header=header))
    except ContentError as error:
        with pytest.raises(ContentError, match=re.escape(str(error))):
            RowReader(text, header=header).count()
        return
    assert RowReader(text, header=header).count() == len(expected)
    assert batches(text, size, header=header) == expected
