"""Empty cells, types of other languages, and cells that cannot be seen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.domain.cells import EmptyCells
from tasks.domain.errors import RowError
from tasks.domain.mapping import Mapping, generate
from tasks.domain.schema_oddities import odd_types, short_arrays


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


# Empty cells


EVERY_TYPE = of(
    s={"type": "string", "index": 0}, n={"type": "number", "index": 1}, i={"type": "integer", "index": 2},
    b={"type": "boolean", "index": 3},
)  # fmt: skip


@pytest.mark.parametrize("blank", ["", " ", "\t "])
@pytest.mark.parametrize(
    ("empty_cells", "body"), [("null", b'{"s":"","n":null,"i":null,"b":null}'), ("omit", b'{"s":""}')]
)
def test_empty_cells__become_null_or_are_left_out(empty_cells: EmptyCells, body: bytes, blank: str) -> None:
    mapping = Mapping(EVERY_TYPE, empty_cells)
    assert mapping.body(["", blank, blank, blank], 1) == body
    assert mapping.body(["x", "1", "2", "true"], 1) == b'{"s":"x","n":1,"i":2,"b":true}'
    texts = mapping.row_texts([["", blank, blank, blank], ["x", "1", "2", "true"]])
    assert texts is not None and mapping.request(texts[:1]) == body


def test_empty_cells__are_refused_by_the_name_of_the_field_that_allows_them() -> None:
    with pytest.raises(RowError) as error:
        Mapping(EVERY_TYPE).body(["x", "", "2", "1"], 7)
    assert str(error.value) == (
        'line 7, column 1, field n: "" is not a number: empty cells are refused, unless empty_cells is null or omit'
    )
    with pytest.raises(RowError, match="empty_cells"):
        Mapping(EVERY_TYPE).body(["x", "1", "  ", "1"], 7)
    with pytest.raises(RowError) as error:
        Mapping(EVERY_TYPE, "null").body(["x", "-", "", "1"], 7)
    assert str(error.value) == 'line 7, column 1, field n: "-" is not a number'


@pytest.mark.parametrize("empty_cells", ["null", "omit"])
def test_empty_cells__that_are_taken_are_not_blamed_for_a_later_cell(empty_cells: EmptyCells) -> None:
    with pytest.raises(RowError) as error:
        Mapping(EVERY_TYPE, empty_cells).body(["x", "", "-", "1"], 7)
    assert str(error.value) == 'line 7, column 2, field i: "-" is not an integer'


def test_empty_cells__of_an_element_of_an_array_are_null_so_that_the_others_keep_their_places() -> None:
    rule = generate(of(a={"type": "array", "items": [{"type": "number"}, {"type": "number"}]}, n={"type": "number"}))
    assert Mapping(rule, "omit").body(["", "2", ""], 1) == b'{"a":[null,2]}'


def test_empty_cells__of_a_request_that_is_one_value_are_null() -> None:
    assert Mapping({"type": "number", "index": 0}, "omit").body([""], 1) == b"null"


def test_empty_cells__are_left_out_of_each_row_of_a_joined_request() -> None:
    row = of(**{"a%": {"type": "number"}, "b": {"type": "number"}, "c": {"type": "string"}})
    mapping = Mapping(generate(of(data=of(rows={"type": "array", "items": row}))), "omit")
    rows = [["1", "", "x"], ["", "2", "y"], ["", "", ""], ["1", "2", "z"], ["", "4", "y"]]
    texts = mapping.row_texts(rows)
    assert texts == ['{"a%":1,"c":"x"}', '{"b":2,"c":"y"}', '{"c":""}', '{"a%":1,"b":2,"c":"z"}', '{"b":4,"c":"y"}']
    assert [mapping.row_text(cells, 1) for cells in rows] == texts
    assert mapping.request(texts[:2]) == b'{"data":{"rows":[{"a%":1,"c":"x"},{"b":2,"c":"y"}]}}'


def test_empty_cells__templates_of_rows_are_not_kept_without_end() -> None:
    names = [f"f{number}" for number in range(12)]
    mapping = Mapping(generate(of(**{name: {"type": "number"} for name in names})), "omit")
    for number in range(1 << 12):
        cells = ["1" if number >> bit & 1 else "" for bit in range(12)]
        wanted = {name: 1 for name, cell in zip(names, cells, strict=True) if cell}
        assert json.loads(mapping.body(cells, 1)) == wanted
    assert len(mapping._without) <= 1000


# Types of other languages


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        ("float", "1.5", 1.5), ("double", "1", 1), ("int", "7", 7), ("long", "7", 7), ("str", "7", "7"),
        ("text", "7", "7"), ("bool", "1", True), (" Float ", "2", 2), (["null", "int"], "7", 7),
    ],
)  # fmt: skip
def test_types__of_other_languages_are_read_as_the_obvious_ones(kind: Any, cell: str, value: Any) -> None:
    schema = of(x={"type": kind})
    assert json.loads(Mapping(generate(schema)).body([cell], 1)) == {"x": value}


def test_types__of_other_languages_are_told() -> None:
    assert odd_types(of(a={"type": "float"}, b={"type": "number"}, c={"type": "date"}, d={"type": "Number"})) == [
        "a: the type 'float' is read as number"
    ]


def test_types__that_are_not_known_are_told_apart_from_missing_indexes() -> None:
    mapping = Mapping(of(a={"type": "date", "index": 0}, b={"type": "number", "index": "x"}))
    assert (mapping.left_out, mapping.of_no_type) == (("a", "b"), {"a"})


def test_message__names_what_cannot_be_seen() -> None:
    with pytest.raises(RowError) as error:
        Mapping(generate(of(n={"type": "number"}))).body(["0.5\u00a0"], 3)
    assert str(error.value) == ('line 3, column 0, field n: "0.5\\u00a0" is not a number (\\u00a0 is a no-break space)')
    with pytest.raises(RowError, match=r"is a byte order mark, \\u200b is a zero width space"):
        Mapping(generate(of(n={"type": "number"}))).body(["\ufeff1\u200b"], 3)


def test_arrays__that_want_more_elements_than_a_row_fills_are_named() -> None:
    inner = {"type": "array", "minItems": 20, "items": {"type": "string"}}
    schema = of(a={"type": "array", "minItems": 1, "items": {"type": "number"}}, b={"type": "array", "items": [inner]})
    assert short_arrays(schema) == [
        "request of the model: b[0] should have at least 20 elements (minItems), and is sent with 1"
    ]
