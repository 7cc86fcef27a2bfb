"""JSON as people write it in config.json: with comments, commas too many, or in GB18030."""

from __future__ import annotations

import json
import re
from typing import Any

_TEXT_OR_COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TEXT_OR_COMMA = re.compile(r'"(?:[^"\\\n]|\\.)*"|,(?=\s*[}\]])')


def parse_lenient(raw: bytes) -> tuple[Any, list[str]]:
    """The value, and what is odd about the text.

    Raises ValueError with line and column if it is not JSON without its comments and commas before a closing bracket.
    """
    odd: list[str] = []
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            text = raw.decode("gb18030")
        except UnicodeDecodeError:
            raise error from None
        odd.append("it is GB18030, not UTF-8")
    try:
        return json.loads(text), odd
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        plain = _TEXT_OR_COMMENT.sub(_blank, text)
        if plain != text:
            odd.append("it has comments")
        whole = _TEXT_OR_COMMA.sub(lambda found: " " if found[0] == "," else found[0], plain)
        if whole != plain:
            odd.append("it has a comma before a closing bracket")
        try:
            return json.loads(whole), odd
        except RecursionError:
            raise ValueError("it is nested too deeply") from None


def _blank(found: re.Match[str]) -> str:
    """A text as it is; a comment as blanks, so that lines and columns in messages stay."""
    return found[0] if found[0].startswith('"') else re.sub(r"[^\n]", " ", found[0])
