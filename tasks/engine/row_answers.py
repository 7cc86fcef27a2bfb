"""The answers to rows, a line for each: that to one row as a whole, that to several rows split.

For splitting, msgspec leaves the elements as they are written, so that they stay the same to the letter. Compared with
reading the whole answer by orjson and cutting it at the signs between two elements, 1,024 texts take a sixth of the
time, 1,024 objects half of it to the same, and 1,024 plain numbers 1.5 times of it, 0.1 ms: less than 1 % of what
their request costs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import msgspec
import orjson

from tasks.domain.answer import compact, shown
from tasks.domain.errors import AnswerError
from tasks.domain.masking import Masker

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_NAME = re.compile(rb'"(?:[^"\\]|\\.)*":', re.DOTALL)
_BEYOND = re.compile(rb'("(?:[^"\\]|\\.)*")|NaN|Infinity', re.DOTALL)
_PAIR = rb"u[dD][89abAB]..\\u[dD][c-fC-F].."
_ESCAPE = re.compile(rb"\\(?:" + _PAIR + rb"|(u[dD][89a-fA-F]..)|.)", re.DOTALL)


def answer_line(answer: bytes, masker: Masker) -> bytes:
    """The line of a response in a table's result file: compact JSON, or a JSON string for text that is not JSON.

    Line breaks at the end of a text are dropped. Raises AnswerError if it is neither JSON nor text, or empty.
    """
    if not answer.strip():
        raise AnswerError("The model's answer is empty; JSON was expected")
    error = json_error(answer)
    if not error:
        return compact(answer)
    try:
        text = answer.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise AnswerError(f"The model's answer is not JSON ({error}), nor text in UTF-8: {shown(answer, masker)}")
    return json.dumps(text.rstrip("\r\n"), ensure_ascii=False).encode()


def split(answer: bytes, rows: int, path: Sequence[str] | None = None) -> list[bytes] | None:
    """The single responses for ``rows`` rows, compact, from the response (JSON) to one request with all of them.

    The response is split at the array to which ``path``, the field names from its top, leads; without a path at its
    only outermost array. That array must have as many elements as there were rows: each row's response is the whole
    one with just its element in the array, otherwise unchanged. None if it cannot be split like this, or is not JSON.
    """
    text = compact(answer)
    if text != answer and json_error(answer):
        return None  # without its blanks it might become JSON
    try:
        text.decode()  # msgspec does not check the texts that it leaves as they are
        arrays = _arrays(text, path)
    except (ValueError, RecursionError, msgspec.DecodeError):
        return None
    if len(arrays) != 1 or len(arrays[0]) != rows + 1:
        return None
    (starts,) = arrays
    before, after = text[: starts[0]], text[max(starts[0], starts[-1] - 1) :]
    return [before + text[start : following - 1] + after for start, following in pairwise(starts)]


def _arrays(text: bytes, path: Sequence[str] | None) -> list[list[int]]:
    """Of each array, the places where its elements start, and where one after the last would.

    Raises ValueError, RecursionError, DecodeError.
    """
    try:
        return [*_below(text, path, 0)]
    except msgspec.DecodeError:
        if json_error(text):
            raise
        return [*_below(_BEYOND.sub(_within_rfc, text), path, 0)]


def _within_rfc(token: re.Match[bytes]) -> bytes:
    """In place of what programs write beyond RFC 8259 (NaN, Infinity, halves of a pair), JSON of the same length."""
    if token[1] is None:
        return b"0.".ljust(len(token[0]), b"0")
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape[1] else escape[0], token[1])


def _below(text: bytes, path: Sequence[str] | None, place: int) -> Iterator[list[int]]:
    """The arrays in a value which begins at a place of the response."""
    if text.startswith(b"[") and not path:
        yield [*accumulate([len(element) + 1 for element in _ELEMENTS.decode(text)], initial=place + 1)]
    elif text.startswith(b"{"):
        members = _MEMBERS.decode(text)
        at = 1
        for name, value in members.items():
            found = _NAME.match(text, at)
            assert found is not None
            at = found.end()
            if path is None or [*path[:1]] == [name]:
                yield from _below(bytes(value), path and path[1:], place + at)
            at += len(value) + 1
        if members and at != len(text):
            raise ValueError("a name stands twice in an object")


def json_error(answer: bytes) -> str:
    """Why a response is not JSON (see :func:`_loads`); empty if it is."""
    detail = ""
    for read in (orjson.loads, _loads):  # the first refuses numbers that no double can hold
        try:
            read(answer)
            return ""
        except (ValueError, RecursionError) as error:
            detail = detail or str(error)
    return detail


def _loads(text: bytes) -> Any:
    """JSON with numbers of any size; beyond RFC 8259 also NaN, Infinity and -Infinity, which many programs write.

    Raises ValueError, RecursionError.
    """
    return json.loads(text.decode(), parse_int=_number, parse_float=_number)


def _number(text: str) -> float:
    return 0.0 if len(text) > 300 else float(text)  # its value does not matter, and may exceed a double
