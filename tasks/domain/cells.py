"""The cells of a row as JSON: numbers, integers, booleans, texts and empty cells."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from typing import Literal

EmptyCells = Literal["refuse", "null", "omit"]
"""Treatment of an empty cell of a number, an integer or a boolean."""
Convert = Callable[[str], str]
"""Converts a cell to JSON. Raises ValueError that names the expected type."""

# RFC 8259, section 6: no plus sign, no leading zeros, no NaN, no infinity.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# Also numbers of programs that leave out a zero or write a plus sign.
_LOOSE_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>0|[1-9][0-9]*)?(?:\.(?P<fraction>[0-9]*))?(?P<exponent>[eE][+-]?[0-9]+)?"
)
_INTEGER = re.compile(r"([+-]?)0*([0-9]+)", re.ASCII)
_MOST_DIGITS = 300
"""Digits allowed in a whole number that is written with a fraction or an exponent."""
_BOOLEANS = {"true": "true", "1": "true", "false": "false", "0": "false"}
_BLANKS = " \t\r\n"
SHOWN = 80
"""Characters of a cell that a message shows."""

COLUMNS = {
    name: re.compile(rf"{cell}(?:\n{cell})*")
    for name, cell in {
        "number": rf"(?:{_NUMBER.pattern})",
        "integer": r"(?:0|-?[1-9][0-9]*)",
        "boolean": r"(?:true|false)",
    }.items()
}
"""Whole columns, one cell per line, of cells that need no conversion."""


def _number(cell: str) -> str:
    text = cell.strip(_BLANKS)
    if _NUMBER.fullmatch(text) is not None:
        return text
    match = _LOOSE_NUMBER.fullmatch(text)
    if match is None or not (match["whole"] or match["fraction"]):
        raise ValueError("is not a number")
    fraction = "" if match["fraction"] is None else f".{match['fraction'] or '0'}"
    return f"{match['sign'].replace('+', '')}{match['whole'] or '0'}{fraction}{match['exponent'] or ''}"


def _integer(cell: str) -> str:
    text = cell.strip(_BLANKS)
    match = _INTEGER.fullmatch(text)
    if match is not None:
        return ("-" if match[1] == "-" and match[2] != "0" else "") + match[2]
    try:
        number = Decimal(_number(text))
    except (ValueError, ArithmeticError):
        raise ValueError("is not an integer") from None
    if number.adjusted() >= _MOST_DIGITS or number != number.to_integral_value():
        raise ValueError("is not an integer")
    return str(int(number))


def _boolean(cell: str) -> str:
    try:
        return _BOOLEANS[cell.strip(_BLANKS).lower()]
    except KeyError:
        raise ValueError("is not true, false, 1 or 0") from None


def _string(cell: str) -> str:
    return json.dumps(cell, ensure_ascii=False)


_CONVERTERS: dict[str, Convert] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "string": _string,
}


OMITTED = ""
"""Marks a value that is left out. (No JSON value is empty.)"""


def is_empty(cell: str) -> bool:
    """Whether a cell holds nothing but blanks."""
    return not cell.strip(_BLANKS)


def converter(kind: str, empty_cells: EmptyCells = "refuse", *, place_kept: bool = False) -> Convert:
    """The function that converts the cells of a leaf of this type to JSON.

    ``place_kept``: the leaf is an element of an array, whose place cannot be left out. There ``omit`` gives null.
    """
    convert = _CONVERTERS[kind]
    if kind == "string":
        return convert
    if empty_cells == "refuse":
        return convert
    empty = "null" if place_kept or empty_cells == "null" else OMITTED
    return lambda cell: empty if is_empty(cell) else convert(cell)


def problem(kind: str, cell: str) -> str | None:
    """The problem with a cell of a leaf of this type if empty cells are refused; None without a problem."""
    try:
        _CONVERTERS[kind](cell)
    except ValueError as error:
        if is_empty(cell):
            return f"{error}: empty cells are refused, unless empty_cells is null or omit"
        return str(error)
    return None


def visible(text: str) -> str:
    """The beginning of a text as JSON, with every invisible character as an escape."""
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    quoted = json.dumps(shown, ensure_ascii=False)
    if quoted.isprintable():
        return quoted
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in quoted)


def unseen_signs(text: str) -> str:
    """The names of the invisible characters in a text, for the end of a message."""
    if text.isprintable():
        return ""
    named = [f"{json.dumps(sign)[1:-1]} is a {name}" for sign in dict.fromkeys(text) if (name := unseen(sign))]
    return f" ({', '.join(named[:3])})" if named else ""


def unseen(sign: str) -> str:
    """The name of an invisible character beyond ASCII, such as "no-break space"; empty for others."""
    if sign.isascii() or sign.isprintable():
        return ""
    return "byte order mark" if sign == "\ufeff" else unicodedata.name(sign, "").lower()
