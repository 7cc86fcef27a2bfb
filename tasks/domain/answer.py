"""What a model answered, made ready for the result file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tasks.domain.errors import AnswerError

_OUTSIDE_TEXT = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)
_BLANK = re.compile(rb"[ \t\r\n]")
SHOWN = 200


def compact(answer: bytes) -> bytes:
    """JSON without the blanks between its parts; numbers, texts and key order stay to the letter."""
    if _BLANK.search(answer) is None:
        return answer
    return _OUTSIDE_TEXT.sub(lambda m: m[1] or b"", answer)


def error_line(message: str) -> bytes:
    """The line of a failed row in a result file."""
    return b'{"error": ' + json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"}"


def shown(answer: bytes) -> str:
    """The beginning of an answer for a message."""
    text = " ".join(answer[: SHOWN + 1].decode("utf-8", "replace").split())
    return f"{text[:SHOWN]}..." if len(answer) > SHOWN else text


def status_error(status: int, answer: bytes, attempts: int) -> AnswerError:
    """The error for an HTTP status that is not a success."""
    times = f" (tried {attempts} times)" if attempts > 1 else ""
    said = f": {shown(answer)}" if answer.strip() else ""
    return AnswerError(f"The model answered HTTP {status}{times}{said}")


def split(answer: Any, rows: int) -> list[Any] | None:
    """The answers for ``rows`` rows out of the answer to one request that carried them all.

    The answer is taken apart where it has exactly one array, and that array has as many elements as there were rows:
    each row's answer is the whole answer with that one element in the array. None if it cannot be split so.
    """
    paths = list(_arrays(answer, ()))
    if len(paths) != 1:
        return None
    path = paths[0]
    elements = _at(answer, path)
    if len(elements) != rows:
        return None
    return [_with(answer, path, [element]) for element in elements]


def _arrays(node: Any, path: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        yield path
    elif isinstance(node, dict):
        for key, child in node.items():
            yield from _arrays(child, (*path, key))


def _at(node: Any, path: Sequence[str]) -> Any:
    for key in path:
        node = node[key]
    return node


def _with(node: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    return {key: _with(child, path[1:], value) if key == path[0] else child for key, child in node.items()}
