"""Which column each field takes, by a table's header."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.domain.csv_rows import RowReader, csv_text
from tasks.domain.errors import ContentError
from tasks.domain.header import HEADERS_KEPT, TableMapping
from tasks.domain.mapping import generate
from tasks.domain.service import BatchService

STRING = {"type": "string"}
NUMBER = {"type": "number"}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def with_rows(schema: dict[str, Any]) -> dict[str, Any]:
    return of(data=of(req_data={"type": "array", "items": [schema]}))


def sent(table: TableMapping, text: str | bytes) -> tuple[list[Any], list[str]]:
    """The requests of a file's rows, and the notes on its header."""
    rows = RowReader(
        csv_text(text.encode() if isinstance(text, str) else text), header=table.header, needed=table.by_place.columns
    )
    mapping, notes = table.of(rows.names())
    batch = rows.take(100)
    assert batch is not None and not batch.faults
    return [json.loads(mapping.body(cells, line)) for cells, line in zip(batch.cells, batch.lines, strict=True)], [
        *notes
    ]


def by_name(schema: dict[str, Any]) -> TableMapping:
    return TableMapping(generate(schema), header=True)


@pytest.mark.parametrize(
    "text",
    [
        "text,n\na,1\n", "n,text\n1,a\n", "id,n,other,text\n7,1,x,a\n", ' n ,text \n1,a\n',
        "\ufeffn,text\n1,a\n", "\ufefftext,n\na,1\n", '"n","text"\n1,"a"\n', "n\u00a0,\u200btext\n1,a\n",
        "n,text\r\n1,a\r\n", "\n\nn,text\n\n1,a\n",
    ],
)  # fmt: skip
def test_header__a_field_takes_the_column_of_its_name(text: str) -> None:
    assert sent(by_name(of(text=STRING, n=NUMBER)), text) == ([{"text": "a", "n": 1}], [])


def test_header__each_file_has_its_own() -> None:
    table = by_name(with_rows(of(text=STRING, n=NUMBER)))
    for text in ("text,n\na,1\n", "n,text\n1,a\n", "text,n\na,1\n"):
        assert sent(table, text)[0] == [{"data": {"req_data": [{"text": "a", "n": 1}]}}]


def test_header__mappings_of_many_headers_are_not_all_kept() -> None:
    table = by_name(of(n=NUMBER))
    for number in range(3 * HEADERS_KEPT):
        assert sent(table, f"c{number},n\n0,{number}\n")[0] == [{"n": number}]
    assert len(table._kept) <= HEADERS_KEPT


def test_header__without_a_name_of_a_field_columns_are_taken_by_their_places() -> None:
    requests, notes = sent(by_name(of(a=STRING, b=STRING)), "first,second\n1,2\n")
    assert requests == [{"a": "1", "b": "2"}]
    assert notes == [
        'no column of the header ("first", "second") has the name of a field: columns are taken by their places'
    ]


def test_header__a_field_whose_name_is_missing_keeps_its_place_if_that_is_free() -> None:
    requests, notes = sent(by_name(of(a=STRING, b=STRING, c=STRING)), "c,second,a\n3,2,1\n")
    assert requests == [{"a": "1", "b": "2", "c": "3"}]
    assert notes == ['field b has no column of its name in the header: it takes the column at its place, 1, "second"']


def test_header__never_gives_a_field_the_column_of_another_ones_name() -> None:
    table = by_name(of(a=STRING, b=STRING))
    with pytest.raises(ContentError) as error:
        sent(table, "x,a\n1,2\n")
    assert str(error.value) == (
        'field b has no column of its name in the header ("x", "a"), and the column at its place, 1, is that of field '
        "a: name its column in the header, or give its index in mapping."
    )


def test_header__a_needed_name_that_stands_twice_is_refused() -> None:
    table = by_name(of(a=STRING, b=STRING))
    with pytest.raises(ContentError, match=r'the name "a" more than once \(columns 0 and 2, counted from 0\)'):
        sent(table, "a,b,a\n1,2,3\n")
    assert sent(table, "a,b,c,c\n1,2,3,4\n") == ([{"a": "1", "b": "2"}], [])


def test_header__fields_of_one_name_are_told_apart_by_what_is_around_them() -> None:
    table = by_name(of(left=of(x=NUMBER), right=of(x=NUMBER)))
    right = [{"left": {"x": 1}, "right": {"x": 2}}]
    assert sent(table, "right.x,left.x\n2,1\n") == (right, [])
    requests, notes = sent(table, "x,y\n1,2\n")
    assert requests == right and "by their places" in notes[0]
    requests, notes = sent(by_name(of(left=of(x=NUMBER), right=of(x=NUMBER), z=NUMBER)), "x,y,z\n1,2,3\n")
    assert requests == [{"left": {"x": 1}, "right": {"x": 2}, "z": 3}]
    assert notes[0].startswith('field left.x is one of 2 fields with the name "x": it takes the column at its place')


def test_header__an_index_of_the_mapping_counts_more_than_a_name() -> None:
    rule = of(a={**STRING, "index": 0}, b=STRING, c={**STRING, "index": -1})
    table = TableMapping(rule, header=True, generated=False)
    assert table.named_only == ["b"]
    assert sent(table, "x,b,a,c\n1,2,3,4\n") == ([{"a": "1", "b": "2"}], [])
    requests, notes = sent(table, "a,x\n1,2\n")
    assert requests == [{"a": "1"}]
    assert notes == ["field b has no column of its name in the header, and is left out"]


def test_header__that_is_absent_is_a_row() -> None:
    table = TableMapping(generate(of(a=STRING, b=STRING)))
    assert sent(table, "b,a\n1,2\n") == ([{"a": "b", "b": "a"}, {"a": "1", "b": "2"}], [])


def test_header__rows_are_as_wide_as_it_is() -> None:
    rows = RowReader("a,b\n1,2,3\n1\n1,2\n", header=True, needed=2)
    batch = rows.take(10)
    assert batch is not None and [*batch.faults] == [0, 1]


def test_header__names_are_read_again_and_again() -> None:
    for text in ("a,b\n1,2\n", '"a",b\n1,2\n'):
        rows = RowReader(text, header=True, needed=2)
        assert [*rows.names()] == [*rows.names()] == ["a", "b"]
        batch = rows.take(10)
        assert batch is not None and [[*cells] for cells in batch.cells] == [["1", "2"]]
    assert RowReader("", header=True).names() == ()
    assert RowReader('a"b,c\n1,2\n', header=True).names() == ()


def test_header__that_cannot_be_read_is_refused_unless_the_mapping_needs_none() -> None:
    text = 'b, "a"\n1,2\n'
    with pytest.raises(ContentError, match="the header cannot be read: a cell with quotes"):
        sent(by_name(of(a=STRING, b=STRING)), text)
    given = TableMapping(generate(of(a=STRING, b=STRING)), header=True, generated=False)
    assert sent(given, text)[0] == [{"a": "1", "b": "2"}]


def test_header__a_service_says_what_it_is_for() -> None:
    service = BatchService(
        model="m", input_path="/in", output_path="/out", csv_header="present", empty_cells="omit", mapping=of(a=NUMBER)
    )
    table = TableMapping.of_service(service, of(a=NUMBER, b={**NUMBER, "index": 0}))
    assert sent(table, "b,a\n1,\n")[0] == [{"b": 1}]
