"""Fields that are the same in every request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.domain.file_request import file_request, left_out, takes_file
from tasks.domain.header import TableMapping
from tasks.domain.mapping import Mapping, generate
from tasks.domain.package import Api


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


CHAT = obj(
    model={"type": "string", "const": "tiny"},
    stream={"type": "boolean", "default": False},
    messages={
        "type": "array",
        "items": [obj(role={"type": "string", "enum": ["user"]}, content={"type": "string"})],
    },
)


def test_constants__are_sent_with_every_row_and_take_no_column() -> None:
    mapping = Mapping(generate(CHAT))
    assert mapping.body(["hello there"], 1) == (
        b'{"model":"tiny","stream":false,"messages":[{"role":"user","content":"hello there"}]}'
    )
    assert (mapping.columns, mapping.left_out, mapping.of_no_type) == (1, (), frozenset())


@pytest.mark.parametrize(
    ("leaf", "text"),
    [
        ({"type": "string", "const": 'say "100 %"'}, '"say \\"100 %\\""'),
        ({"type": "string", "const": "图"}, '"图"'),
        ({"type": "number", "const": "0.5"}, "0.5"),
        ({"type": "integer", "default": 3}, "3"),
        ({"type": "integer", "default": "many"}, '"many"'),
        ({"type": "boolean", "enum": ["true"]}, "true"),
        ({"const": [1, {"a": None}]}, '[1,{"a":null}]'),
        ({"type": "array", "default": []}, "[]"),
        ({"type": "object", "default": {"a": 1}}, '{"a":1}'),
        ({"type": "string", "const": None}, "null"),
        ({"type": "number", "default": float("nan")}, "null"),
        ({"type": "string", "const": "\ud800"}, '"\\ud800"'),
        ({"type": "string", "const": "a", "default": "b", "enum": ["c"]}, '"a"'),
        ({"type": "string", "const": "a", "index": None}, '"a"'),
    ],
)
def test_constant__is_sent_as_json(leaf: dict[str, Any], text: str) -> None:
    mapping = Mapping(generate(obj(a=leaf, b={"type": "number"})))
    assert mapping.body(["7"], 1).decode() == f'{{"a":{text},"b":7}}'


def test_index__takes_the_place_of_a_constant() -> None:
    rule = obj(a={"type": "string", "default": "x", "index": 0}, b={"type": "string", "enum": ["p"], "index": "no"})
    mapping = Mapping(rule)
    assert (mapping.body(["y"], 1), mapping.left_out) == (b'{"a":"y"}', ("b",))


def test_enum__of_several_values_is_no_constant() -> None:
    assert Mapping(generate(obj(a={"type": "string", "enum": ["p", "q"]}))).body(["q"], 1) == b'{"a":"q"}'


def test_rows__go_together_beside_constants() -> None:
    rule = generate(
        obj(
            model={"const": "100 %"},
            rows={"type": "array", "items": obj(x={"type": "number"}, unit={"const": "m"})},
            top={"type": "integer", "default": 3},
        )
    )
    mapping = Mapping(rule)
    assert mapping.takes_many_rows
    request = mapping.request([mapping.row_text(["1"], 1), mapping.row_text(["2"], 2)])
    assert request == b'{"model":"100 %","rows":[{"x":1,"unit":"m"},{"x":2,"unit":"m"}],"top":3}'
    assert mapping.body(["1"], 1) == b'{"model":"100 %","rows":[{"x":1,"unit":"m"}],"top":3}'


def test_header__fills_a_default_but_no_const() -> None:
    rule = generate(
        obj(a={"type": "string"}, b={"type": "integer", "default": 3}, c={"type": "string", "const": "fixed"})
    )
    table = TableMapping(rule, header=True)
    assert table.of(["c", "b", "a"]).mapping.body(["x", "5", "y"], 2) == b'{"a":"y","b":5,"c":"fixed"}'
    without = table.of(["a"])
    assert (without.mapping.body(["y"], 2), without.notes) == (b'{"a":"y","b":3,"c":"fixed"}', ())


def api(schema: Any, content_type: str = "multipart/form-data") -> Api:
    return Api.model_validate({"request": {"Content-type": content_type, "data": schema}})


FILE = {"type": "file"}


def test_form__has_the_constants_beside_the_file() -> None:
    asked = api(
        obj(file=FILE, model={"const": "tiny"}, threshold={"type": "number", "default": 0.5}, more={"const": [1]})
    )
    form = file_request(asked, "boot-file")
    assert form is not None
    body = form.body("a.txt", b"DATA")
    boundary = body.content_type.partition("boundary=")[2]
    parts = [part.partition("\r\n\r\n") for part in body.data.decode().split(f"--{boundary}")[1:-1]]
    assert [(head.partition("form-data; ")[2].partition("\r\n")[0], text.strip()) for head, _, text in parts] == [
        ('name="model"', "tiny"),
        ('name="threshold"', "0.5"),
        ('name="more"', "[1]"),
        ('name="file"; filename="a.txt"', "DATA"),
    ]


@pytest.mark.parametrize(
    ("schema", "optional", "required"),
    [
        (obj(file=FILE, a={"type": "string"}), ["a"], []),
        ({**obj(file=FILE, a={"type": "string"}, b={"type": "string"}), "required": ["file", "b"]}, ["a"], ["b"]),
        (obj(file=FILE, a={"type": "string", "required": True}), [], ["a"]),
        ({**obj(file=FILE, a={"type": "string", "const": "x"}), "required": ["a"]}, [], []),
        (obj(file=FILE, inner={**obj(a={"type": "string"}), "required": ["a"]}), [], ["a"]),
    ],
)
def test_fields__beside_a_file_without_a_constant_are_left_out(
    schema: Any, optional: list[str], required: list[str]
) -> None:
    assert left_out(api(schema)) == (optional, required)


def test_file__is_sent_in_base64_in_a_json_body() -> None:
    schema = obj(
        model={"const": "tiny"},
        instances={"type": "array", "items": obj(b64={"type": "string", "x-thresher-encoding": "base64"})},
        other={"type": "string"},
    )
    asked = api(schema, "application/json")
    assert takes_file(asked)
    form = file_request(asked, "built-in")
    assert form is not None
    body = form.body("a.png", b"\x89PNG")
    assert (body.content_type, json.loads(body.data)) == (
        "application/json",
        {"model": "tiny", "instances": [{"b64": "iVBORw=="}]},
    )
    assert left_out(asked) == (["other"], [])


@pytest.mark.parametrize("content_type", ["application/octet-stream", "image/png"])
def test_file__is_the_bare_body_where_the_request_is_no_form(content_type: str) -> None:
    form = file_request(api(obj(data=FILE), content_type), "running")
    assert form is not None
    assert (form.body("a.png", b"DATA").content_type, form.body("a.png", b"DATA").data) == (content_type, b"DATA")
    of_package = file_request(api(obj(data=FILE), content_type), "built-in")
    assert of_package is not None and of_package.body("a.png", b"").content_type.startswith("multipart/form-data")


def test_rows__are_no_file() -> None:
    assert not takes_file(api(CHAT)) and file_request(api(CHAT), "running") is None
