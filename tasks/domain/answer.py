"""A model's responses, prepared for the result file."""

from __future__ import annotations

import json
import re
from typing import Any

from tasks.domain.errors import AnswerError
from tasks.domain.mapping import properties, schema_type
from tasks.domain.masking import Masker
from tasks.domain.paths import redact
from tasks.domain.plain_text import plain_lines

_OUTSIDE_TEXT = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)
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
