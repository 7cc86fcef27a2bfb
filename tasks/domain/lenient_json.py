"""JSON as people write it in config.json: with comments, commas too many, or in GB18030."""

from __future__ import annotations

import json
import re
from typing import Any

# What is left open reaches to the end: every match succeeds, so that no text is read twice.
_TEXT_OR_COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_TEXT_OR_COMMA = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|,(?=\s*[}\]])')
MAX_LEVELS = 200
"""Far beyond any config.json: what handles it afterwards calls itself once a level."""


def parse_lenient(raw: bytes) -> tuple[Any, list[str]]:
    """The value, and what is odd about the text.

    Raises ValueError if it is nested too deeply, or, with line and column, if it is not JSON without its comments and
    commas before a closing bracket.
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
        return _loaded(text), odd
    except json.JSONDecodeError:
        plain = _TEXT_OR_COMMENT.sub(_blank, text)
        if plain != text:
            odd.append("it has comments")
        whole = _TEXT_OR_COMMA.sub(lambda found: " " if found[0] == "," else found[0], plain)
        if whole != plain:
            odd.append("it has a comma before a closing bracket")
        return _loaded(whole), odd


def _loaded(text: str) -> Any:
    try:
        value = json.loads(text)
    except RecursionError:
        value = None
        deep = True
    else:
        deep = _is_deep(value)
    if deep:
        raise ValueError(f"it is nested too deeply: it should have at most {MAX_LEVELS} levels")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_LEVELS):
        level = [
            child
            for one in level
            if isinstance(one, (dict, list))
            for child in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def _blank(found: re.Match[str]) -> str:
    """A text as it is; a comment as blanks, so that lines and columns in messages stay."""
    return found[0] if found[0].startswith('"') else re.sub(r"[^\n]", " ", found[0])
