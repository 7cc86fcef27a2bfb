"""What a model answered, made ready for the result file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.answer import SHOWN, compact, error_line, shown, status_error


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (b'{"a": 1}', b'{"a":1}'),
        (b'{"a":1}', b'{"a":1}'),
        (b' [ 1 ,\n\t2.50 , 1E5,-0.0 ] \r\n', b"[1,2.50,1E5,-0.0]"),
        (b'{ "b" : 1, "a" : 2, "b" : 3 }', b'{"b":1,"a":2,"b":3}'),
        (b'{"text": "a b,  c : d"}', b'{"text":"a b,  c : d"}'),
        (b'{"quote": "say \\" x \\" "}', b'{"quote":"say \\" x \\" "}'),
        (b'{"end": "\\\\" , "x": " "}', b'{"end":"\\\\","x":" "}'),
        ('{"é": "日 本"}'.encode(), '{"é":"日 本"}'.encode()),
        (b'"\\u00e9 x"', b'"\\u00e9 x"'),
        (b"123456789012345678901234567890.10 ", b"123456789012345678901234567890.10"),
        (b" true ", b"true"),
        (b'{\n  "rows": [\n    [],\n    {}\n  ]\n}\n', b'{"rows":[[],{}]}'),
    ],
)  # fmt: skip
def test_compact__takes_out_blanks_and_nothing_else(answer: bytes, line: bytes) -> None:
    assert compact(answer) == line


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    json_values,
    st.booleans(),
    st.none() | st.sampled_from([0, 3, "\t"]),
    st.sampled_from([(", ", ": "), (" ,\r\n", "\t: ")]),
)
def test_compact__keeps_numbers_texts_and_order_to_the_letter(
    value: Any, ascii_only: bool, indent: Any, separators: tuple[str, str]
) -> None:
    written = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators)
    expected = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode()
    assert compact(written.encode()) == expected
    assert compact(expected) == expected
    assert b"\n" not in expected


def test_compact__is_quick_with_large_answers() -> None:
    value = {"embedding": [0.123] * 20_000, "text": "a b " * 50_000}
    assert compact(json.dumps(value).encode()) == json.dumps(value, separators=(",", ":")).encode()


@given(st.text())
def test_error_line__is_one_line_of_json(message: str) -> None:
    line = error_line(message)
    assert json.loads(line) == {"error": message}
    assert b"\n" not in line


def test_error_line__is_as_the_contract_has_it() -> None:
    assert error_line('row 17: "x"') == b'{"error": "row 17: \\"x\\""}'
    assert b"error" in error_line("half a pair \ud800")


def test_shown__is_one_line_and_not_long() -> None:
    assert shown(b"a\n\n  b\t") == "a b"
    assert shown(b"x" * SHOWN) == "x" * SHOWN
    assert shown(b"x" * 10_000) == "x" * SHOWN + "..."
    assert shown("日".encode() * 1000).startswith("日日")
    assert len(shown("日".encode() * 1000)) <= SHOWN + 3
    assert shown(b"\xff\xfe") == "\ufffd\ufffd"


@pytest.mark.parametrize(
    ("status", "answer", "attempts", "message"),
    [
        (500, b"", 1, "The model answered HTTP 500"),
        (500, b" \n", 1, "The model answered HTTP 500"),
        (422, b'{"detail":\n "no"}', 1, 'The model answered HTTP 422: {"detail": "no"}'),
        (503, b"busy", 6, "The model answered HTTP 503 (tried 6 times): busy"),
    ],
)
def test_status_error__says_status_attempts_and_answer(status: int, answer: bytes, attempts: int, message: str) -> None:
    assert str(status_error(status, answer, attempts)) == message


def test_status_error__names_where_a_redirect_leads_without_its_secrets() -> None:
    said = str(status_error(307, b"", 1, location="http://127.0.0.1:8080/predict/"))
    assert said.startswith("The model answered HTTP 307 to http://127.0.0.1:8080/predict/ (")
    assert "SECRET" not in str(status_error(302, b"", 1, location="https://u:SECRET@host/x?Signature=SECRET"))
    assert "\n" not in str(status_error(302, b"", 1, location="/a\n\x1b[31mb"))
    assert str(status_error(404, b"", 1, location="/elsewhere")) == "The model answered HTTP 404"
