"""JSON as people write it in config.json."""

from __future__ import annotations

import pytest

from tasks.domain.lenient_json import line_at, lines_of, parse_lenient


@pytest.mark.parametrize(
    ("text", "value", "odd"),
    [
        ('{"a": 1}', {"a": 1}, []),
        ('\ufeff{"a": 1}', {"a": 1}, []),
        ('{"a": 1, // one\n"b": [2,],}', {"a": 1, "b": [2]}, ["comments", "comma"]),
        ('{/* a\n */"a": "http://x//y" }', {"a": "http://x//y"}, ["comments"]),
        ('{"a": {"type": "string"}//,\n//  "b": 2\n}', {"a": {"type": "string"}}, ["comments"]),
        ('{"a": ",]", "b": "/* no */", "c": "\\"//",}', {"a": ",]", "b": "/* no */", "c": '"//'}, ["comma"]),
        ("[1, 2 , ]", [1, 2], ["comma"]),
    ],
)
def test_json__with_comments_and_commas_too_many_is_read(text: str, value: object, odd: list[str]) -> None:
    got, said = parse_lenient(text.encode())
    assert got == value
    assert len(said) == len(odd) and all(word in sentence for word, sentence in zip(odd, said, strict=True))


def test_json__in_gb18030_is_read() -> None:
    assert parse_lenient('{"a": "食物", // 注释\n}'.encode("gb18030")) == (
        {"a": "食物"},
        ["it is GB18030, not UTF-8", "it has comments", "it has a comma before a closing bracket"],
    )


@pytest.mark.parametrize("raw", [b"{", b"", b"{'a': 1}", b'{"a" 1}', b"\xff", b"[" * 10_000, b'{"a": 1} // x\n}'])
def test_json__that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"line|nested|codec"):
        parse_lenient(raw)


def test_error__names_the_line_although_comments_are_passed_over() -> None:
    with pytest.raises(ValueError, match="line 3 column 8"):
        parse_lenient(b'{ // one\n/* two\n*/ "a" 1}')


@pytest.mark.parametrize(
    "text", ["[" * 10_000 + "]" * 10_000, '{"a":' * 500 + "1" + "}" * 500, "// x\n" + "[" * 300 + "]" * 300]
)
def test_json__of_many_levels_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_lenient(text.encode())


def test_json__of_some_levels_is_read() -> None:
    assert parse_lenient(b"[" * 150 + b"]" * 150)[1] == []


@pytest.mark.parametrize("odd", ["/*", '"', '\\"', '"\\', "//", ", ", ',"'])
def test_json__with_endless_odd_signs_is_refused_without_delay(odd: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        parse_lenient((odd * (1 << 20)).encode())


TEXT = """{ // "a": 1
  "model_type": "PyTorch",
  "apis": [
    {"url": "/", "request": {
      "data": {"a,]": [1, {"b": "x"}], "c": {}}}},

    /* "url": "/no",
    */ {"url": "/second"}, {},
  ],
  "deep.er": {"x": 1},
  "health": ""
}"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("model_type", 2), ("apis", 3), ("apis[0]", 4), ("apis[0].url", 4), ("apis[0].request.data", 5),
        ("apis[0].request.data.a,]", 5), ("apis[0].request.data.a,][1].b", 5), ("apis[1]", 8), ("apis[1].url", 8),
        ("apis[2]", 8), ("deep.er.x", 10), ("health", 11),
        # Not there: that of the value around it.
        ("apis[0].request.Content-type", 4), ("apis[7].url", 3), ("health.url", 11), ("nothing", None), ("", None),
    ],
)  # fmt: skip
def test_lines__are_those_of_the_values_in_the_file(path: str, line: int | None) -> None:
    for text in (TEXT, TEXT.replace("\n", "\r\n")):
        assert line_at(path, lines_of(text.encode())) == line
    assert line_at(path, lines_of(TEXT.replace("PyTorch", "食物").encode("gb18030"))) == line


def test_lines__of_a_deep_text_take_no_long_paths() -> None:
    deep = '{"a": [' * 5000 + "]}" * 5000
    lines = lines_of(deep.encode())
    assert max(map(len, lines)) < 200
    assert line_at("a[0].a", lines) == 1
