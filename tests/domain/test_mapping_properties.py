"""What holds for the mapping of any schema and any cells."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.errors import RowError
from tasks.domain.mapping import Mapping, generate


def leaf(kind: str, index: Any = 0) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": {"type": kind, "index": index}}}


def objects(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


# Properties

LEAVES = {
    "number": st.from_regex(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    "integer": st.integers().map(str),
    "boolean": st.sampled_from(["true", "false", "TRUE", "0", "1"]),
    "string": st.text(),
}


names = st.text(min_size=1, max_size=6)


leaves = st.sampled_from(sorted(LEAVES)).map(lambda kind: {"type": kind})


def _nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    items = st.one_of(children, st.lists(children, min_size=1, max_size=3))
    return st.one_of(
        st.dictionaries(names, children, max_size=4).map(lambda fields: {"type": "object", "properties": fields}),
        st.builds(lambda key, held: {"type": "array", key: held}, st.sampled_from(["items", "item"]), items),
    )


schemas = st.recursive(leaves, _nested, max_leaves=12)


@st.composite
def schemas_and_cells(draw: st.DrawFn, schema: Any = schemas) -> tuple[Any, list[str]]:
    drawn = draw(schema)
    return drawn, [draw(LEAVES[field.type]) for field in Mapping(generate(drawn)).fields]


def expected(schema: dict[str, Any], cells: list[str]) -> Any:
    """The request as a simple reading of the contract has it; takes its cells off the list."""
    if schema["type"] == "object":
        return [(name, expected(child, cells)) for name, child in schema["properties"].items()]
    if schema["type"] == "array":
        items = schema.get("items", schema.get("item"))
        return [expected(item, cells) for item in (items if isinstance(items, list) else [items])]
    cell = cells.pop(0)
    if schema["type"] == "boolean":
        return cell.lower() in ("true", "1")
    return cell if schema["type"] == "string" else ("a number", cell)


def parsed(body: bytes) -> Any:
    """The body with numbers as they stand and objects as ordered pairs."""

    def number(text: str) -> tuple[str, str]:
        return ("a number", text)

    return json.loads(body, parse_int=number, parse_float=number, object_pairs_hook=list)


@given(schemas_and_cells())
def test_mapping__any_schema_and_cells_give_the_schemas_structure_with_the_cells_values(
    case: tuple[dict[str, Any], list[str]],
) -> None:
    schema, cells = case
    body = Mapping(generate(schema)).body(cells, 1)
    assert parsed(body) == expected(schema, list(cells))


rows_of_objects = st.dictionaries(names, schemas, max_size=3).map(
    lambda fields: {"type": "object", "properties": fields}
)


@given(
    st.lists(names, max_size=3),
    rows_of_objects.flatmap(lambda row: st.lists(schemas_and_cells(st.just(row)), min_size=1, max_size=5)),
)
def test_mapping__joined_bodies_are_the_concatenated_lists_of_single_bodies(
    wrappers: list[str], rows: list[tuple[dict[str, Any], list[str]]]
) -> None:
    schema: dict[str, Any] = {"type": "array", "items": rows[0][0]}
    for name in wrappers:
        schema = {"type": "object", "properties": {name: schema}}
    mapping = Mapping(generate(schema))
    bodies = [mapping.body(cells, 1) for _, cells in rows]
    joined = mapping.request([mapping.row_text(cells, 1) for _, cells in rows])

    def array_of(body: bytes) -> list[Any]:
        document = parsed(body)
        for _ in wrappers:
            ((_, document),) = document
        return list(document)

    assert array_of(joined) == [row for body in bodies for row in array_of(body)]
    assert len(array_of(joined)) == len(rows)


CELLS = st.one_of(
    st.text(max_size=6), st.floats().map(str), st.integers().map(str),
    st.sampled_from(["true", "false", "1", "0", "-0", "+1", "007", " 1", "1 ", "1e5", "1.0", "", "1\n2", "\n", "1\n",
                     "%s", "NaN", "TRUE", "-1", "1.", "\u0661"]),
)  # fmt: skip


@given(st.lists(st.sampled_from(sorted(LEAVES)), min_size=0, max_size=3), st.data())
def test_mapping__of_many_rows_at_once_is_that_of_each(kinds: list[str], data: st.DataObject) -> None:
    fields = {f"f%{number}": {**leaf(kind), "index": number} for number, kind in enumerate(kinds)}
    mapping = Mapping({"type": "object", "properties": {"%d": {"type": "array", "items": objects(**fields)}}})
    rows = data.draw(st.lists(st.lists(CELLS, min_size=len(kinds), max_size=len(kinds) + 1), min_size=1, max_size=5))
    many = mapping.row_texts(rows)
    if many is not None:
        assert many == [mapping.row_text(cells, 1) for cells in rows]
    elif len(set(map(len, rows))) == 1:  # then a cell is not as JSON writes it
        assert any(
            kind != "string" and not as_json_writes_it(cells[number], kind)
            for cells in rows
            for number, kind in enumerate(kinds)
        )


def as_json_writes_it(cell: str, kind: str) -> bool:
    try:
        value = json.loads(cell, parse_int=str, parse_float=str)
    except ValueError:
        return False
    if kind == "boolean":
        return value in (True, False)
    return value == cell and value not in ("-0", "NaN") and (kind == "number" or cell.lstrip("-").isdigit())


@given(st.text(), st.sampled_from(sorted(LEAVES)))
def test_mapping__any_cell_is_either_converted_to_valid_json_or_refused(cell: str, kind: str) -> None:
    try:
        body = Mapping(leaf(kind)).body([cell], 1)
    except RowError:
        assert kind != "string"
        return
    value = parsed(body)[0][1]
    if kind == "string":
        assert value == cell
