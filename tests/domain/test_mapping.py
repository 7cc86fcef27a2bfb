"""How cells become requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.domain.cells import visible
from tasks.domain.errors import RowError
from tasks.domain.mapping import Field, Mapping, column_index, file_leaf, generate, schema_type

# As the original's document prints them: the request of the iris model, its mapping rule, its CSV data, its request.
IRIS_APIS = """
[ { "method": "post", "url": "/", "request": { "Content-type": "multipart/form-data", "data": { "type": "object",
"properties": { "data": { "type": "object", "properties": { "req_data": { "type": "array", "items": [ { "type":
"object", "properties": { "input_1": { "type": "number" }, "input_2": { "type": "number" }, "input_3": { "type":
"number" }, "input_4": { "type": "number" } } } ] } } } } } } } ]
"""


IRIS_RULE = """
{ "type": "object", "properties": { "data": { "type": "object", "properties": { "req_data": { "type": "array",
"items": [ { "type": "object", "properties": { "input_1": { "type": "number", "index": 0 }, "input_2": { "type":
"number", "index": 1 }, "input_3": { "type": "number", "index": 2 }, "input_4": { "type": "number", "index": 3 } } }
] } } } } }
"""


IRIS_ROWS = ("5.1,3.5,1.4,0.2", "4.9,3.0,1.4,0.2", "4.7,3.2,1.3,0.2")


IRIS_REQUEST = (
    '{ "data": { "req_data": [{ "input_1": 5.1, "input_2": 3.5, "input_3": 1.4, "input_4": 0.2 }] } }',
    '{ "data": { "req_data": [{ "input_1": 4.9, "input_2": 3.0, "input_3": 1.4, "input_4": 0.2 }] } }',
    '{ "data": { "req_data": [{ "input_1": 4.7, "input_2": 3.2, "input_3": 1.3, "input_4": 0.2 }] } }',
)


def iris_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(IRIS_APIS)[0]["request"]["data"]
    return schema


def leaf(kind: str, index: Any = 0) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": {"type": kind, "index": index}}}


def body_of(kind: str, cell: str) -> str:
    return Mapping(leaf(kind)).body([cell], 1).decode()


def objects(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


# The document's example


def test_mapping__generates_the_rule_of_the_documents_example_to_the_letter() -> None:
    assert json.dumps(generate(iris_schema())) == json.dumps(json.loads(IRIS_RULE))


@pytest.mark.parametrize(("row", "request_text"), [*zip(IRIS_ROWS, IRIS_REQUEST, strict=True)])
def test_mapping__makes_the_requests_of_the_documents_example_to_the_letter(row: str, request_text: str) -> None:
    body = Mapping(json.loads(IRIS_RULE)).body(row.split(","), 1)
    assert body.decode() == "".join(request_text.split())  # compact, same order, same number text (3.0 stays 3.0)


def test_mapping__does_not_change_the_schema_it_generates_from() -> None:
    schema = iris_schema()
    generate(schema)
    assert schema == iris_schema()


def test_mapping__counts_indexes_in_the_order_the_fields_stand_across_nesting() -> None:
    schema = objects(
        b={"type": "string"},
        a=objects(z={"type": "integer"}, y={"type": "array", "items": {"type": "boolean"}}),
        c={"type": "number"},
    )
    mapping = Mapping(generate(schema))
    assert [(field.name, field.index) for field in mapping.fields] == [("b", 0), ("a.z", 1), ("a.y[0]", 2), ("c", 3)]
    assert mapping.body(["t", "7", "TRUE", "1e3"], 1) == b'{"b":"t","a":{"z":7,"y":[true]},"c":1e3}'


# Shapes of schemas


@pytest.mark.parametrize(
    ("array", "body"),
    [
        ({"type": "array", "items": {"type": "number"}}, b'{"a":[1]}'),
        ({"type": "array", "items": [{"type": "number"}]}, b'{"a":[1]}'),
        ({"type": "array", "items": [{"type": "number"}, {"type": "string"}]}, b'{"a":[1,"2"]}'),
        ({"type": "array", "item": {"type": "number"}}, b'{"a":[1]}'),
        ({"type": "array", "item": [{"type": "number"}]}, b'{"a":[1]}'),
        ({"items": {"type": "number"}}, b'{"a":[1]}'),
        ({"type": "array", "items": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}},
         b'{"a":[[[1]]]}'),
        ({"type": "array", "items": objects(p={"type": "number"}, q={"type": "number"})}, b'{"a":[{"p":1,"q":2}]}'),
        ({"type": "array"}, b'{"a":[]}'),
        ({"type": "array", "items": []}, b'{"a":[]}'),
        ({"properties": {"p": {"type": "number"}}}, b'{"a":{"p":1}}'),
        ({"type": ["number", "null"]}, b'{"a":1}'),
        ({"type": " Number "}, b'{"a":1}'),
    ],
)  # fmt: skip
def test_mapping__reads_every_way_in_which_a_schema_says_its_shape(array: dict[str, Any], body: bytes) -> None:
    assert Mapping(generate(objects(a=array))).body(["1", "2"], 1) == body


def test_mapping__a_generated_rule_says_items_where_the_schema_said_item() -> None:
    rule = generate({"type": "array", "item": {"type": "number"}})
    assert rule == {"type": "array", "items": {"type": "number", "index": 0}}


def test_mapping__keeps_what_else_a_schema_says() -> None:
    schema = objects(a={"type": "number", "title": "A", "minimum": 0}) | {"required": ["a"]}
    assert generate(schema) == {
        "type": "object",
        "properties": {"a": {"type": "number", "title": "A", "minimum": 0, "index": 0}},
        "required": ["a"],
    }


@pytest.mark.parametrize("schema", [None, 3, [], {}, {"type": "null"}, {"type": 7}, {"type": "date"}])
def test_mapping__a_node_of_no_known_type_has_no_type(schema: Any) -> None:
    assert schema_type(schema) is None


def test_mapping__a_request_that_is_one_value_is_that_value() -> None:
    assert Mapping({"type": "string", "index": 1}).body(["a", "b"], 1) == b'"b"'


def test_mapping__field_names_need_not_be_ascii() -> None:
    assert Mapping(objects(**{'größe "x"': {"type": "number", "index": 0}})).body(["1"], 1) == (
        '{"größe \\"x\\"":1}'.encode()
    )


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        (objects(images={"type": "file"}), "images"),
        (objects(meta={"type": "string"}, data=objects(picture={"type": "file"})), "picture"),
        (objects(images={"type": "array", "items": {"type": "file"}}), "images"),
        ({"type": "file"}, "file"),
        (iris_schema(), None),
        ({}, None),
    ],
)
def test_mapping__a_leaf_of_type_file_makes_the_request_a_file(schema: Any, name: str | None) -> None:
    assert file_leaf(schema) == name


# Indexes


@pytest.mark.parametrize(
    ("index", "read"),
    [(0, 0), (7, 7), (3.0, 3), ("4", 4), (" 5 ", 5), ("007", 7)]
    + [(bad, None) for bad in (-1, -1.0, 1.5, "-1", "+1", "1.0", "x", "", "٣", True, False, None, [], {},
                               float("nan"), float("inf"), "9" * 5000)],
)  # fmt: skip
def test_mapping__an_index_is_a_whole_number_from_0_on(index: Any, read: int | None) -> None:
    assert column_index(index) == read


@pytest.mark.parametrize("index", [-1, 1.5, "x", None, True])
def test_mapping__leaves_out_a_field_whose_index_is_not_a_whole_number_from_0_on(index: Any) -> None:
    rule = objects(
        a={"type": "number", "index": 1}, b={"type": "number", "index": index}, c={"type": "string", "index": 0}
    )
    mapping = Mapping(rule)
    assert mapping.body(["x", "1"], 1) == b'{"a":1,"c":"x"}'
    assert mapping.left_out == ("b",)


def test_mapping__leaves_out_a_field_whose_index_is_negative() -> None:
    assert Mapping(leaf("number", -1)).body(["5"], 1) == b"{}"


def test_mapping__leaves_out_a_leaf_without_an_index_and_names_it() -> None:
    rule = objects(
        d=objects(rows={"type": "array", "items": objects(a={"type": "number"}, b={"type": "number", "index": 0})})
    )
    mapping = Mapping(rule)
    assert mapping.body(["5"], 1) == b'{"d":{"rows":[{"b":5}]}}'
    assert mapping.left_out == ("d.rows[0].a",)


def test_mapping__keeps_the_order_when_the_first_field_is_left_out() -> None:
    rule = {
        "type": "array",
        "items": [{"type": "number"}, {"type": "number", "index": 2}, {"type": "string", "index": 0}],
    }
    assert Mapping(rule).body(["t", "", "7"], 1) == b'[7,"t"]'


def test_mapping__one_column_may_fill_several_fields() -> None:
    rule = objects(a={"type": "number", "index": 0}, b={"type": "string", "index": 0})
    assert Mapping(rule).body(["1.5"], 1) == b'{"a":1.5,"b":"1.5"}'


# Cells


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        *[("number", text, text) for text in ("0", "-0", "5.1", "3.0", "-1.50", "1e5", "1E+5", "2.5e-10", "1e400",
                                               "0.1000000000000000055511151231257827", "9" * 400)],
        ("number", " 5.1 ", "5.1"), ("number", "\t5\r\n", "5"),
        ("integer", "0", "0"), ("integer", "7", "7"), ("integer", "-7", "-7"), ("integer", "+7", "7"),
        ("integer", "007", "7"), ("integer", "-007", "-7"), ("integer", "-0", "0"), ("integer", "000", "0"),
        ("integer", " 42 ", "42"), ("integer", "9" * 6000, "9" * 6000),
        *[("boolean", text, "true") for text in ("true", "TRUE", "True", "1", " 1 ", "tRuE")],
        *[("boolean", text, "false") for text in ("false", "FALSE", "False", "0", "\tfalse ")],
        ("string", "", '""'), ("string", " a ", '" a "'), ("string", "5.1", '"5.1"'), ("string", "true", '"true"'),
        ("string", 'say "x"', '"say \\"x\\""'), ("string", "a\\b", '"a\\\\b"'), ("string", "a\nb\tc", '"a\\nb\\tc"'),
        ("string", "naïve – 日本 😀", '"naïve – 日本 😀"'), ("string", "\x00\x1f", '"\\u0000\\u001f"'),
    ],
)  # fmt: skip
def test_mapping__converts_a_cell_to_the_type_of_its_field(kind: str, cell: str, value: str) -> None:
    assert body_of(kind, cell) == f'{{"x":{value}}}'


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        ("number", ".5", "0.5"), ("number", "-.5", "-0.5"), ("number", "+.5e3", "0.5e3"), ("number", "3.", "3.0"),
        ("number", "+5", "5"), ("number", " +5.50 ", "5.50"), ("number", "-0.", "-0.0"), ("number", "2.e-1", "2.0e-1"),
        ("integer", "7.0", "7"), ("integer", "-7.00", "-7"), ("integer", "7.", "7"), ("integer", "1e3", "1000"),
        ("integer", "+12.0", "12"), ("integer", "-0.0", "0"),
        ("integer", "12345678901234567890.0", "12345678901234567890"),
        ("integer", "1.5e1", "15"),
    ],
)  # fmt: skip
def test_mapping__takes_numbers_as_programs_write_them(kind: str, cell: str, value: str) -> None:
    assert body_of(kind, cell) == f'{{"x":{value}}}'


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        *[("number", text) for text in ("", " ", "NaN", "nan", "inf", "-inf", "Infinity", ".", "+", "+-1", ".e1", "01",
                                         "1,5", "0x10", "1e", "1e+", "--1", "- 1", "1 2", "1_000", "٣", "one", "1\x00",
                                         "\u00a05", "true", "null")],
        *[("integer", text) for text in ("", "1.5", "1e-3", "1e999999999", "0.1", ".", "NaN", "inf")],
        *[("integer", text) for text in ("x", "+", "-", "--1", "1 2", "1_000", "٣", "²", "0x1")],
        *[("boolean", text) for text in ("", "yes", "no", "2", "t", "f", "00", "1.0", "on")],
    ],
)  # fmt: skip
def test_mapping__refuses_a_cell_that_is_not_of_the_fields_type(kind: str, cell: str) -> None:
    with pytest.raises(RowError) as caught:
        body_of(kind, cell)
    message = str(caught.value)
    assert message.startswith("line 1, column 0, field x: ")
    assert visible(cell) in message


def test_mapping__says_line_column_field_and_value_of_a_bad_cell() -> None:
    with pytest.raises(RowError) as caught:
        Mapping(json.loads(IRIS_RULE)).body(["5.1", "3.5", "abc", "0.2"], 17)
    assert str(caught.value) == 'line 17, column 2, field data.req_data[0].input_3: "abc" is not a number'


def test_mapping__says_line_column_and_field_of_a_missing_column() -> None:
    with pytest.raises(RowError) as caught:
        Mapping(json.loads(IRIS_RULE)).body(["5.1", "3.5"], 3)
    assert str(caught.value).startswith("line 3, column 2, field data.req_data[0].input_3: the row has 2 columns")


def test_mapping__shows_only_the_beginning_of_a_long_bad_cell() -> None:
    with pytest.raises(RowError) as caught:
        body_of("number", "x" * 100_000)
    assert len(str(caught.value)) < 200
    assert "xxx..." in str(caught.value)


def test_mapping__takes_more_columns_than_it_needs() -> None:
    assert Mapping(leaf("number")).body(["1", "2", "3"], 1) == b'{"x":1}'


def test_mapping__a_column_that_no_row_can_have_is_a_missing_column() -> None:
    with pytest.raises(RowError, match="column 100000000000000000, field x: the row has 1 columns"):
        Mapping(leaf("number", 10**17)).body(["1"], 1)


def test_mapping__names_the_first_wrong_field_in_request_order() -> None:
    rule = objects(b={"type": "number", "index": 1}, a={"type": "number", "index": 0})
    with pytest.raises(RowError, match="column 1, field b"):
        Mapping(rule).body(["bad", "bad"], 1)


# Several rows in one request


def test_mapping__joins_rows_in_the_array_of_the_request() -> None:
    mapping = Mapping(json.loads(IRIS_RULE))
    texts = [mapping.row_text(row.split(","), 1) for row in IRIS_ROWS]
    assert mapping.takes_many_rows
    assert json.loads(mapping.request(texts)) == {
        "data": {"req_data": [json.loads(text)["data"]["req_data"][0] for text in IRIS_REQUEST]}
    }
    assert mapping.request(texts[:1]) == mapping.body(IRIS_ROWS[0].split(","), 1)


@pytest.mark.parametrize(
    "rule",
    [
        leaf("number"),
        objects(a={"type": "array", "items": {"type": "number", "index": 0}}),
        objects(a={"type": "array", "items": objects(x={"type": "number", "index": 0})}, b={"type": "number",
        "index": 1}),
        objects(a={"type": "array", "items": [objects(x={"type": "number", "index": 0}), objects()]}),
        {"type": "array", "items": {"type": "array", "items": {"type": "number", "index": 0}}},
        {},
    ],
)  # fmt: skip
def test_mapping__does_not_join_rows_where_the_request_has_no_single_array_of_rows(rule: dict[str, Any]) -> None:
    mapping = Mapping(rule)
    assert not mapping.takes_many_rows
    with pytest.raises(ValueError, match="no array of rows"):
        mapping.request(["{}", "{}"])


def test_mapping__a_field_at_the_root_has_a_name_too() -> None:
    assert Field((), "number", 0).name == "(the request itself)"


def test_generate__adds_nothing_to_an_array_without_items() -> None:
    schema = {"type": "object", "properties": {"rows": {"type": "array"}, "n": {"type": "number"}}}
    assert generate(schema)["properties"] == {"rows": {"type": "array"}, "n": {"type": "number", "index": 0}}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.5\u00a0", '"0.5\\u00a0"'),
        ("\ufefftrue", '"\\ufefftrue"'), ("a\u200bb", '"a\\u200bb"'), ("\x1b[31m", '"\\u001b[31m"'),
        ("größe 汉 😀", '"größe 汉 😀"'), ('say "x"\t', '"say \\"x\\"\\t"'), ("\u2028", '"\\u2028"'),
        ("\U000e0001", '"\\udb40\\udc01"'),
        ("x" * 100, f'"{"x" * 80}..."'), ("", '""'),
    ],
)  # fmt: skip
def test_message__shows_what_cannot_be_seen(text: str, shown: str) -> None:
    assert visible(text) == shown
