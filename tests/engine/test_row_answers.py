"""The lines of answers: to one row, and to several rows taken apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.errors import AnswerError
from tasks.domain.masking import Masker
from tasks.engine.row_answers import answer_line, split

json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("answer", "rows", "parts"),
    [
        ([1, 2], 2, [[1], [2]]),
        ({"data": {"resp_data": [{"p": 1}, {"p": 2}]}}, 2, [{"data": {"resp_data": [{"p": 1}]}},
         {"data": {"resp_data": [{"p": 2}]}}]),
        ({"model": "m", "rows": [1, 2], "n": 2}, 2, [{"model": "m", "rows": [1], "n": 2}, {"model": "m",
         "rows": [2], "n": 2}]),
        ([[1, 2], [3]], 2, [[[1, 2]], [[3]]]),
        ([], 0, []),
        ([1, 2, 3], 2, None),
        ([1], 2, None),
        ({"a": [1, 2], "b": [1, 2]}, 2, None),
        ({"a": 1}, 2, None),
        ("ab", 2, None),
        (None, 2, None),
        (7, 1, None),
    ],
)  # fmt: skip
def test_split__takes_an_answer_apart_where_it_has_its_one_array(answer: Any, rows: int, parts: Any) -> None:
    assert split(dumped(answer), rows) == (None if parts is None else [dumped(part) for part in parts])


@pytest.mark.parametrize(
    "answer",
    [b'[{"a":1 2},{"a":3}]', b'{"p":[{"v":t rue},{"v":0 .5}]}', b"[1, 2,]", b"[1 2, 3]", b'{"a": [1, 2]'],
)
def test_split__takes_nothing_apart_that_is_no_json(answer: bytes) -> None:
    assert split(answer, 2) is None


def dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def test_split__keeps_numbers_and_texts_to_the_letter() -> None:
    answer = b'{"rows": [ {"p": 1.10, "n": 123456789012345678901234567890}, {"p": 1e2, "t": "a [ , ] \\" b"} ]}'
    assert split(answer, 2) == [
        b'{"rows":[{"p":1.10,"n":123456789012345678901234567890}]}',
        b'{"rows":[{"p":1e2,"t":"a [ , ] \\" b"}]}',
    ]


@given(st.lists(json_values, min_size=1, max_size=6), st.lists(st.text(max_size=3), max_size=3))
def test_split__gives_every_row_the_answer_it_would_have_had_alone(rows: list[Any], keys: list[str]) -> None:
    def wrapped(values: list[Any]) -> Any:
        document: Any = values
        for key in keys:
            document = {key: document}
        return document

    assert split(dumped(wrapped(rows)), len(rows)) == [dumped(wrapped([row])) for row in rows]
    assert split(dumped(wrapped(rows)), len(rows) + 1) is None


def test_split__keeps_what_is_no_number_as_the_model_wrote_it() -> None:
    assert split(b'{"p": [NaN, 0.5, -Infinity]}', 3) == [b'{"p":[NaN]}', b'{"p":[0.5]}', b'{"p":[-Infinity]}']


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        (b'{"t": "\\ud800", "p": ["\\udc00\\\\ud83d", NaN]}', [b'{"t":"\\ud800","p":["\\udc00\\\\ud83d"]}',
         b'{"t":"\\ud800","p":[NaN]}']),
        (b'["NaN", "-Infinity \\" [1, 2]"]', [b'["NaN"]', b'["-Infinity \\" [1, 2]"]']),
        (b'{"x": "[1,2]", "\\u00e9\\"": {"]": [1, 2]}, "y": {}}', [b'{"x":"[1,2]","\\u00e9\\"":{"]":[1]},"y":{}}',
         b'{"x":"[1,2]","\\u00e9\\"":{"]":[2]},"y":{}}']),
        (b'{"p": [1, 2], "p": [1, 2]}', None),
        (b'{"p": [1, 2], "x": "\xff"}', None),
        (b'["\xff", 1]', None),
        (b"[NaN, nan]", None),
        (b"[-NaN, 1]", None),
        (b"[01, 2]", None),
        (b"\xef\xbb\xbf[1, 2]", None),
        (b'{"a": ' * 100_000 + b"[1, 2]" + b"}" * 100_000, None),
        (b"[" * 100_000, None),
        (b"", None),
    ],
)  # fmt: skip
def test_split__of_odd_answers_is_to_the_letter_or_none(answer: bytes, parts: list[bytes] | None) -> None:
    assert split(answer, 2) == parts


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (("a", "b"), [b'{"a":{"b":[1],"c":[3,4]},"b":[5,6]}', b'{"a":{"b":[2],"c":[3,4]},"b":[5,6]}']),
        (("b",), [b'{"a":{"b":[1,2],"c":[3,4]},"b":[5]}', b'{"a":{"b":[1,2],"c":[3,4]},"b":[6]}']),
        (("a",), None),
        (("c",), None),
        ((), None),
        (None, None),
    ],
)
def test_split__takes_the_array_at_a_path(path: tuple[str, ...] | None, parts: list[bytes] | None) -> None:
    assert split(b'{"a": {"b": [1, 2], "c": [3, 4]}, "b": [5, 6]}', 2, path) == parts


def test_split__takes_an_answer_that_is_an_array_by_its_empty_path() -> None:
    assert split(b"[1, [2]]", 2, ()) == [b"[1]", b"[[2]]"]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (b'{"a": 1}', b'{"a":1}'),
        (b'{"p": NaN, "q": [Infinity, -Infinity], "t": "N aN"}', b'{"p":NaN,"q":[Infinity,-Infinity],"t":"N aN"}'),
        (b"NaN", b"NaN"),
        (b"setosa", b'"setosa"'),
        (b"setosa\r\n", b'"setosa"'),
        ('Größe 汉 "x"\n\tb'.encode(), '"Größe 汉 \\"x\\"\\n\\tb"'.encode()),
        (b'{"ok": tr', b'"{\\"ok\\": tr"'),
        (b"<html>\n</html>\n", b'"<html>\\n</html>"'),
        (b"nan", b'"nan"'),
    ],
)  # fmt: skip
def test_answer_line__is_compact_json_or_a_text_as_a_json_string(answer: bytes, line: bytes) -> None:
    assert answer_line(answer, Masker()) == line
    assert b"\n" not in line


@pytest.mark.parametrize("answer", [b"", b" \r\n", b"\xff\xd8\xff\xe0", '{"a": "é"}'.encode("latin-1"), b"[\0]"])
def test_answer_line__of_what_is_empty_or_no_text_is_an_error(answer: bytes) -> None:
    with pytest.raises(AnswerError, match=r"is empty; JSON was expected|is not JSON .*nor text in UTF-8"):
        answer_line(answer, Masker())
