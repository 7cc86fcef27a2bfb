"""The cells of a row as JSON: numbers, integers, booleans and texts, and an empty cell in the place of one."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from typing import Literal

EmptyCells = Literal["refuse", "null", "omit"]
"""What an empty cell of a number, an integer or a boolean becomes."""
Convert = Callable[[str], str]
"""A cell as JSON. Raises ValueError, saying what the cell is not."""

# RFC 8259, section 6: no plus sign, no leading zeros, no NaN, no infinity.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# Beside it what programs write that leave out a zero, or tell a plus.
_LOOSE_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>0|[1-9][0-9]*)?(?:\.(?P<fraction>[0-9]*))?(?P<exponent>[eE][+-]?[0-9]+)?"
)
_INTEGER = re.compile(r"([+-]?)0*([0-9]+)", re.ASCII)
_MOST_DIGITS = 300
"""Of a whole number that is written with a fraction or an exponent."""
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
"""Whole columns, a cell a line, of cells that need no conversion."""


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
"""In the place of a value: there is none. (No JSON value is empty.)"""


def is_empty(cell: str) -> bool:
    """Whether there is nothing in a cell but blanks."""
    return not cell.strip(_BLANKS)


def converter(kind: str, empty_cells: EmptyCells = "refuse", *, place_kept: bool = False) -> Convert:
    """What makes JSON of the cells of a leaf of this type.

    ``place_kept`` says that its place cannot be left out: an element of an array, before which others stand. There
    ``omit`` gives null.
    """
    convert = _CONVERTERS[kind]
    if kind == "string":
        return convert
    if empty_cells == "refuse":
        return convert
    empty = "null" if place_kept or empty_cells == "null" else OMITTED
    return lambda cell: empty if is_empty(cell) else convert(cell)


def problem(kind: str, cell: str) -> str | None:
    """What is wrong with the cell of a leaf of this type, if empty cells are refused; None if nothing is."""
    try:
        _CONVERTERS[kind](cell)
    except ValueError as error:
        if is_empty(cell):
            return f"{error}: empty cells are refused, unless empty_cells is null or omit"
        return str(error)
    return None


def visible(text: str) -> str:
    """The beginning of a text as JSON, with every character that does not show written as an escape."""
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    quoted = json.dumps(shown, ensure_ascii=False)
    if quoted.isprintable():
        return quoted
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in quoted)


def unseen_signs(text: str) -> str:
    """Which characters of a text do not show, by their names, for the end of a message."""
    if text.isprintable():
        return ""
    named = [f"{json.dumps(sign)[1:-1]} is a {name}" for sign in dict.fromkeys(text) if (name := unseen(sign))]
    return f" ({', '.join(named[:3])})" if named else ""


def unseen(sign: str) -> str:
    """The name of a character beyond ASCII that does not show, as in "no-break space"; empty for others."""
    if sign.isascii() or sign.isprintable():
        return ""
    return "byte order mark" if sign == "\ufeff" else unicodedata.name(sign, "").lower()
