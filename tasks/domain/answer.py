"""A model's responses, prepared for the result file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from tasks.domain.errors import AnswerError
from tasks.domain.mapping import properties, schema_type
from tasks.domain.masking import Masker
from tasks.domain.paths import redact
from tasks.domain.plain_text import plain_lines

_OUTSIDE_TEXT = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)
_STRUCTURE = re.compile(rb'(?:"(?:[^"\\]|\\.)*")|[\[\]{},:]', re.DOTALL)
_BLANKS = (b" ", b"\n", b"\t", b"\r")
SHOWN = 200
LOOKED_AT = 4 << 10
"""Bytes of a response from which an excerpt is taken."""
_NOTHING_SECRET = Masker()


def compact(answer: bytes) -> bytes:
    """JSON without the blanks between its parts; numbers, texts and key order stay exactly the same."""
    if not any(blank in answer for blank in _BLANKS):
        return answer
    if b"\\" not in answer:  # so every second piece is a text in quotes
        pieces = answer.split(b'"')
        pieces[::2] = [piece.translate(None, b" \t\r\n") for piece in pieces[::2]]
        return b'"'.join(pieces)
    return _OUTSIDE_TEXT.sub(lambda m: m[1] or b"", answer)


def error_line(message: str) -> bytes:
    """The line of a failed row in a result file."""
    return b'{"error": ' + json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"}"


def shown(answer: bytes, masker: Masker = _NOTHING_SECRET) -> str:
    """The beginning of a response for a message: one line, plain, without secrets."""
    piece = answer[: LOOKED_AT + masker.longest].lstrip()
    text = piece.decode("utf-8", "replace")
    if len(answer) > LOOKED_AT + masker.longest:  # the piece may end inside a secret
        text = "\n".join(plain_lines(text.replace("\r", "\n")))
        text = text[: masker.cut(text)]
    text = " ".join(masker.line(text).split())
    return f"{text[:SHOWN]}..." if len(text) > SHOWN else text


def status_error(
    status: int, answer: bytes, attempts: int, masker: Masker = _NOTHING_SECRET, location: str = ""
) -> AnswerError:
    """The error for an HTTP status that is not a success. ``location`` is the target of a redirect."""
    times = f" (tried {attempts} times)" if attempts > 1 else ""
    to = ""
    if location and 300 <= status < 400:
        place = redact(shown(location.encode(), masker))
        to = f" to {place} (redirects are not followed: request_path should lead there)"
    detail = f": {shown(answer, masker)}" if answer.strip() else ""
    return AnswerError(f"The model answered HTTP {status}{to}{times}{detail}")


def array_path(response: Any) -> tuple[str, ...] | None:
    """The path of the response's array, by the ``response`` of an API in ``config.json``; None if that is ambiguous.

    It is known if the schema has exactly one array that is not in another one.
    """
    found: list[tuple[str, ...]] = []

    def look(schema: Any, path: tuple[str, ...]) -> None:
        kind = schema_type(schema)
        if kind == "array":
            found.append(path)
        elif kind == "object":
            for name, child in properties(schema).items():
                look(child, (*path, name))

    look(response.get("data") if isinstance(response, dict) else None, ())
    return found[0] if len(found) == 1 else None


Loads = Callable[[bytes], Any]
"""Reads JSON as :func:`loads` does, but may refuse (ValueError) numbers that no double can hold."""


def json_error(answer: bytes, quick_loads: Loads | None = None) -> str:
    """Why a response is not JSON (see :func:`loads`); empty if it is."""
    detail = ""
    for read in (quick_loads or loads, loads):
        try:
            read(answer)
            return ""
        except (ValueError, RecursionError) as error:
            detail = detail or str(error)
    return detail


def answer_line(answer: bytes, masker: Masker = _NOTHING_SECRET, quick_loads: Loads | None = None) -> bytes:
    """The line of a response in a table's result file: compact JSON, or a JSON string for text that is not JSON.

    Line breaks at the end of a text are dropped. Raises AnswerError if it is neither JSON nor text, or empty.
    """
    if not answer.strip():
        raise AnswerError("The model's answer is empty; JSON was expected")
    error = json_error(answer, quick_loads)
    if not error:
        return compact(answer)
    try:
        text = answer.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise AnswerError(f"The model's answer is not JSON ({error}), nor text in UTF-8: {shown(answer, masker)}")
    return json.dumps(text.rstrip("\r\n"), ensure_ascii=False).encode()


def split(
    answer: bytes, rows: int, path: Sequence[str] | None = None, quick_loads: Loads | None = None
) -> list[bytes] | None:
    """The single responses for ``rows`` rows, compact, from the response (JSON) to one request with all of them.

    The response is split at the array to which ``path``, the field names from its top, leads; without a path at its
    only outermost array. That array must have as many elements as there were rows: each row's response is the whole
    one with just its element in the array, otherwise unchanged. None if it cannot be split like this, or is not JSON.
    """
    text = compact(answer)
    if text != answer and json_error(answer, quick_loads):
        return None  # without its blanks it might become JSON
    found = _quick_split(text, path, quick_loads or loads)
    if found is None:
        found = _split(text, path)
    if found is None or len(found[1]) != rows:
        return None
    before, elements, after = found
    return [before + element + after for element in elements]


Parts = tuple[bytes, list[bytes], bytes]
"""The text before the elements of the array, the elements, and the text after them."""

_BETWEEN: dict[frozenset[type], tuple[bytes, bytes, bytes]] = {
    frozenset({dict}): (b"{", b"},{", b"}"),
    frozenset({list}): (b"[", b"],[", b"]"),
    frozenset({int}): (b"", b",", b""),
    frozenset({float}): (b"", b",", b""),
    frozenset({int, float}): (b"", b",", b""),
}
"""The beginning of elements of one kind, the text between two of them, and their end."""


def _quick_split(text: bytes, path: Sequence[str] | None, loads: Loads) -> Parts | None:
    """As :func:`_split`, for the most common responses; None leaves it to :func:`_split`.

    The text from the first opening to the last closing bracket is the one outermost array, if both this text and the
    text around it are JSON. If the array has n elements of one kind, and the characters between two elements of that
    kind occur n - 1 times in it, then they occur nowhere else.
    """
    start, end = text.find(b"[") + 1, text.rfind(b"]")
    before, inner, after = text[:start], text[start:end], text[end:]
    if not 0 < start <= end or any(b"\\" in side or side.count(b'"') % 2 for side in (before, after)):
        return None  # a bracket may be in a text
    try:
        around, elements = loads(before + after), loads(text[start - 1 : end + 1])
    except (ValueError, RecursionError):
        return None
    if path is not None and _at(around, path) != []:
        return None
    signs = _BETWEEN.get(frozenset(map(type, elements)))
    if signs is None or inner.count(signs[1]) != len(elements) - 1:
        return None
    opening, between, closing = signs
    pieces = inner[len(opening) : len(inner) - len(closing)].split(between)
    return before + opening, pieces, closing + after


def _at(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _split(text: bytes, path: Sequence[str] | None) -> Parts | None:
    """The array at ``path``, or the one outermost array, of any compact JSON text."""
    if json_error(text):
        return None
    names: list[str] = []
    depth = start = end = element = 0
    elements: list[bytes] = []
    inside = False
    name = ""
    for match in _STRUCTURE.finditer(text):
        sign = match[0]
        if inside:
            if sign in b"[{":
                depth += 1
            elif sign in b"]}":
                depth -= 1
            if depth < 0 or (depth == 0 and sign == b","):
                if match.start() > element or elements:
                    elements.append(text[element : match.start()])
                element = match.end()
            if depth < 0:
                inside, depth, end = False, 0, match.start()
        elif sign == b"[" and not depth and (path is None or names == [*path]):
            if start:
                return None  # a second one
            start = element = match.end()
            inside = True
        elif sign == b"[":
            depth += 1
        elif sign == b"]":
            depth -= 1
        elif depth:  # in an array other than the one at ``path``
            continue
        elif sign == b"{":
            names.append("")
        elif sign == b"}":
            names.pop()
        elif sign == b":":
            names[-1] = name
        elif sign != b",":
            name = json.loads(sign)
    return (text[:start], elements, text[end:]) if start else None


def loads(text: bytes) -> Any:
    """JSON with numbers of any size; beyond RFC 8259 also NaN, Infinity and -Infinity, which many programs write.

    Raises ValueError, RecursionError.
    """
    return json.loads(text.decode(), parse_int=_number, parse_float=_number)


def _number(text: str) -> float:
    return 0.0 if len(text) > 300 else float(text)  # its value does not matter, and may exceed a double
