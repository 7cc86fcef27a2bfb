"""What a model answered, made ready for the result file."""

from __future__ import annotations

import json
import re

from tasks.domain.errors import AnswerError

_OUTSIDE_TEXT = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)
_STRUCTURE = re.compile(rb'(?:"(?:[^"\\]|\\.)*")|[\[\]{},]', re.DOTALL)
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


def split(answer: bytes, rows: int) -> list[bytes] | None:
    """The answers for ``rows`` rows out of the answer (JSON) to one request that carried them all, compact.

    The answer is taken apart where it has exactly one outermost array, and that array has as many elements as there
    were rows: each row's answer is the whole answer with that one element in the array, to the letter. None if it
    cannot be split so.
    """
    text = compact(answer)
    depth = arrays = start = end = element = 0
    elements: list[bytes] = []
    for match in _STRUCTURE.finditer(text):
        sign = match[0]
        if sign in b"[{":
            if sign == b"[" and not arrays:
                if start:
                    return None  # a second array outside of the first
                start = element = match.end()
                arrays, depth = 1, 0
            elif arrays:
                depth += 1
        elif arrays and sign in b"]}":
            if depth:
                depth -= 1
                continue
            if match.start() > element or elements:
                elements.append(text[element : match.start()])
            end, arrays = match.start(), 0
        elif arrays and sign == b"," and not depth:
            elements.append(text[element : match.start()])
            element = match.end()
    if not start or len(elements) != rows:
        return None
    return [text[:start] + one + text[end:] for one in elements]
