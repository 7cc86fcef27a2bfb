"""JSON as people write it in config.json: with comments, commas too many, or in GB18030."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# What is left open reaches to the end: every match succeeds, so that no text is read twice.
_TEXT_OR_COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_TEXT_OR_COMMA = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|,(?=\s*[}\]])')
MAX_LEVELS = 200
"""Far beyond any config.json: what handles it afterwards calls itself once a level."""
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_DEEPEST = 30
"""Values further inside have the line of the one around them."""


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


def lines_of(raw: bytes) -> dict[str, int]:
    """The line of each value of a text that :func:`parse_lenient` accepts, by its path: ``apis[0].url``."""
    text = raw.decode("utf-8-sig" if _is_utf8(raw) else "gb18030", "replace")
    plain = _TEXT_OR_COMMENT.sub(_blank, text)
    found: dict[str, int] = {}
    above: list[tuple[str, int | None]] = []
    """For each open object or list: its path, and the number of its present element if it is a list."""
    name = ""
    line, at, key = 1, 0, True
    for token in _TOKEN.finditer(plain):
        line, at, sign = line + plain.count("\n", at, token.start()), token.start(), token[0]
        if sign in "]}":
            above[-1:] = []
            key = False
        elif sign == ":":
            key = False
        elif sign == ",":
            if above and above[-1][1] is not None:
                above[-1] = (above[-1][0], above[-1][1] + 1)
            key = True
        else:
            path, number = above[-1] if above else ("", None)
            if above and number is None and key:
                name = _name(sign)
                if len(above) <= _DEEPEST:
                    found[f"{path}.{name}".lstrip(".")] = line
                continue
            own = path if not above else f"{path}[{number}]" if number is not None else f"{path}.{name}".lstrip(".")
            if number is not None and len(above) <= _DEEPEST:
                found[own] = line
            if sign in "{[":
                above.append((own if len(above) < _DEEPEST else path, 0 if sign == "[" else None))
                key = True
    return found


def line_at(path: str, lines: Mapping[str, int]) -> int | None:
    """The line of the value at a path, else of the nearest one around it that is there."""
    while path:
        if path in lines:
            return lines[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return None


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _name(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def _blank(found: re.Match[str]) -> str:
    """A text as it is; a comment as blanks, so that lines and columns in messages stay."""
    return found[0] if found[0].startswith('"') else re.sub(r"[^\n]", " ", found[0])
