"""How the cells of a row become the fields of a request.

A mapping rule is the JSON Schema of the request in which every leaf (string, number, integer, boolean) has an
``index``: the CSV column, from 0 on, that fills it. :func:`generate` makes the rule from a schema, :class:`Mapping` is
a rule made ready to turn rows into JSON bodies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

from tasks.domain.csv_rows import Fault
from tasks.domain.errors import RowError

LEAF_TYPES = ("string", "number", "integer", "boolean")

# RFC 8259, section 6: no plus sign, no leading zeros, no NaN, no infinity.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# Beside it what programs write that leave out a zero, or tell a plus.
_LOOSE_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>0|[1-9][0-9]*)?(?:\.(?P<fraction>[0-9]*))?(?P<exponent>[eE][+-]?[0-9]+)?"
)
_INTEGER = re.compile(r"([+-]?)0*([0-9]+)", re.ASCII)
_MOST_DIGITS = 300
"""Of a whole number that is written with a fraction or an exponent."""
_INDEX = re.compile(r"[0-9]{1,18}")
_BOOLEANS = {"true": "true", "1": "true", "false": "false", "0": "false"}
_BLANKS = " \t\r\n"
SHOWN = 80
"""Characters of a cell that a message shows."""

# Whole columns, a cell a line, of cells that need no conversion.
_COLUMNS = {
    name: re.compile(rf"{cell}(?:\n{cell})*")
    for name, cell in {
        "number": rf"(?:{_NUMBER.pattern})",
        "integer": r"(?:0|-?[1-9][0-9]*)",
        "boolean": r"(?:true|false)",
    }.items()
}

Schema = dict[str, Any]
Path = tuple[str | int, ...]


def schema_type(schema: Any) -> str | None:
    """The one type that a schema node stands for: a leaf type, ``object``, ``array``, ``file``, or None if unknown.

    A list of types (``["number", "null"]``) stands for its first known one; a node without a type for what its
    ``properties`` or ``items`` imply.
    """
    if not isinstance(schema, dict):
        return None
    declared = schema.get("type")
    for name in declared if isinstance(declared, list) else [declared]:
        if isinstance(name, str) and name.strip().lower() in (*LEAF_TYPES, "object", "array", "file"):
            return name.strip().lower()
    if declared is None and isinstance(schema.get("properties"), dict):
        return "object"
    if declared is None and element_schemas(schema):
        return "array"
    return None


def element_schemas(schema: Schema) -> list[Schema]:
    """The schemas of an array's elements: one for ``items`` as an object, all of a tuple; also under ``item``."""
    items = schema.get("items", schema.get("item"))
    if isinstance(items, dict):
        return [items]
    if isinstance(items, list):
        return [item for item in items if isinstance(item, dict)]
    return []


def properties(schema: Schema) -> dict[str, Any]:
    """The properties of an object schema, in the order they stand."""
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def walk(schema: Any, path: Path = ()) -> Iterator[tuple[Path, Schema, str | None]]:
    """Every node of a schema that is not an object or an array, with its path and its type, in order."""
    kind = schema_type(schema)
    if kind == "object":
        for name, child in properties(schema).items():
            yield from walk(child, (*path, name))
    elif kind == "array":
        for position, child in enumerate(element_schemas(schema)):
            yield from walk(child, (*path, position))
    else:
        yield path, schema if isinstance(schema, dict) else {}, kind


def file_leaf(schema: Any) -> str | None:
    """The name of the first leaf of type ``file``, or None if the request is JSON."""
    for path, _, kind in walk(schema):
        if kind == "file":
            names = [part for part in path if isinstance(part, str)]
            return names[-1] if names else "file"
    return None


def generate(schema: Schema) -> Schema:
    """The mapping rule of a request schema: ``index`` 0, 1, 2 ... on every leaf, in the order the fields stand."""
    counter = iter(range(1_000_000))

    def node(schema: Any) -> Any:
        kind = schema_type(schema)
        if not isinstance(schema, dict):
            return schema
        if kind == "object":
            return {**schema, "properties": {name: node(child) for name, child in properties(schema).items()}}
        if kind == "array":
            items = schema.get("items", schema.get("item"))
            if items is None:
                return dict(schema)
            ruled = [node(item) for item in items] if isinstance(items, list) else node(items)
            return {**{k: v for k, v in schema.items() if k != "item"}, "items": ruled}
        if kind in LEAF_TYPES:
            return {**schema, "index": next(counter)}
        return dict(schema)

    ruled: Schema = node(schema)
    return ruled


def column_index(value: Any) -> int | None:
    """``value`` as a column index: a whole number from 0 on (also written as text, as real files do), else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    if isinstance(value, float) and value.is_integer():
        return int(value) if value >= 0 else None
    if isinstance(value, str) and _INDEX.fullmatch(value.strip()) is not None:
        return int(value)
    return None


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


def _text(text: str) -> str:
    """JSON text, readable where UTF-8 can say it (half a surrogate pair can only be escaped)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=False)


def _string(cell: str) -> str:
    return json.dumps(cell, ensure_ascii=False)


_CONVERTERS: dict[str, Callable[[str], str]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "string": _string,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One leaf that a column fills: its path in the request, its type and its column index."""

    path: Path
    type: str
    index: int

    @property
    def name(self) -> str:
        """The path as text: ``data.req_data[0].input_1``."""
        text = ""
        for part in self.path:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        return text or "(the request itself)"


class Mapping:
    """A mapping rule made ready: rows in, JSON bodies out.

    ``fields`` are the leaves that a column fills, in request order; ``left_out`` the names of those that are left out
    of every request because they have no usable index (or no known type).

    A body is joined from text that never changes and the converted cells. The number in a cell is sent as it stands
    there (``3.0`` stays ``3.0``, nothing is rounded).
    """

    def __init__(self, rule: Schema) -> None:
        self.rule = rule
        fields: list[Field] = []
        left_out: list[str] = []
        pieces: list[str | Field] = _pieces(rule, (), fields, left_out) or ["null"]
        self.fields = tuple(fields)
        self.left_out = tuple(left_out)
        self.columns = max((field.index + 1 for field in fields), default=1)
        """Columns that a row has at least."""
        self._steps = [(_CONVERTERS[field.type], field.index) for field in fields]
        array = _row_array(rule)
        self.takes_many_rows = array is not None
        """Whether the request has exactly one array of row objects, so that several rows can go in one request."""
        self._head, self._tail = array or ("", "")
        text = "".join("%s" if isinstance(piece, Field) else piece.replace("%", "%%") for piece in pieces)
        escaped = [len(side.replace("%", "%%")) for side in (self._head, self._tail)]
        self._template = text[escaped[0] : len(text) - escaped[1]]

    def body(self, cells: Sequence[str], line: int) -> bytes:
        """The request body, compact JSON in UTF-8, of one row; as :meth:`row_text` and :meth:`request`."""
        return self.request([self.row_text(cells, line)])

    def row_text(self, cells: Sequence[str], line: int) -> str:
        """What a row brings into the request: an element of its array of rows, or all of it if it has none.

        ``line`` is the row's line in its file, for messages. Raises RowError if a column is missing or a cell cannot be
        converted, naming line, column, field and value.
        """
        try:
            return self._template % tuple([convert(cells[index]) for convert, index in self._steps])
        except (ValueError, IndexError):
            raise self._row_error(cells, line) from None

    def row_texts(self, rows: Sequence[Sequence[str]]) -> list[str] | None:
        """What :meth:`row_text` makes of many rows, column by column: a fifth of the time.

        None if a row needs a closer look: a column that is missing, a cell that is not written as JSON writes it.
        """
        try:
            if len(rows[0]) <= 2 * len(self.fields) + 8:
                table = [*zip(*rows, strict=True)]
                found = [self._column(field.type, table[field.index]) for field in self.fields]
            else:  # of many columns most are not needed
                found = [self._column(field.type, [row[field.index] for row in rows]) for field in self.fields]
        except (ValueError, IndexError):
            return None
        if not found:
            return [self._template % ()] * len(rows)
        return [*map(self._template.__mod__, zip(*found, strict=True))]

    @staticmethod
    def _column(kind: str, cells: Sequence[str]) -> Sequence[str]:
        """The cells of a column as JSON. Raises ValueError if one of them is not written so."""
        if kind == "string":
            return [*map(encode_basestring, cells)]
        text = "\n".join(cells)
        if _COLUMNS[kind].fullmatch(text) is None or text.count("\n") != len(cells) - 1:
            raise ValueError(kind)
        return cells

    def request(self, texts: Sequence[str]) -> bytes:
        """The request body of one row or of several, from what :meth:`row_text` made of each.

        Raises ValueError for several rows if the request has no array of rows (:attr:`takes_many_rows`).
        """
        if len(texts) > 1 and not self.takes_many_rows:
            raise ValueError("the request has no array of rows")
        return f"{self._head}{','.join(texts)}{self._tail}".encode()

    def _row_error(self, cells: Sequence[str], line: int) -> RowError:
        for field in self.fields:
            if field.index >= len(cells):
                return self.row_fault(Fault(len(cells), None, ""), line)
            cell = cells[field.index]
            try:
                _CONVERTERS[field.type](cell)
            except ValueError as error:
                return self.row_fault(Fault(field.index, cell, str(error)), line)
        raise AssertionError("a row that converts has no error")  # pragma: no cover

    def row_fault(self, fault: Fault, line: int) -> RowError:
        """The error of a row with a fault: line, column, field (if the column fills one), value and what is wrong."""
        if fault.value is None and (missing := [field for field in self.fields if field.index >= fault.column]):
            problem = f"the row has {fault.column} columns only (columns are counted from 0)"
            return RowError(f"line {line}, column {missing[0].index}, field {missing[0].name}: {problem}")
        name = next((field.name for field in self.fields if field.index == fault.column), None)
        where = f"line {line}, column {fault.column}" + (f", field {name}" if name is not None else "")
        value = f"{visible(fault.value)} " if fault.value is not None else ""
        return RowError(f"{where}: {value}{fault.problem}")


def visible(text: str) -> str:
    """The beginning of a text as JSON, with every character that does not show written as an escape."""
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    quoted = json.dumps(shown, ensure_ascii=False)
    if quoted.isprintable():
        return quoted
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in quoted)


def _pieces(schema: Any, path: Path, fields: list[Field], left_out: list[str]) -> list[str | Field] | None:
    """The request as text and fields; None if the node is left out."""
    kind = schema_type(schema)
    if kind == "object":
        members: list[str | Field] = []
        for name, child in properties(schema).items():
            value = _pieces(child, (*path, name), fields, left_out)
            if value is not None:
                members += ["," if members else "", _text(name), ":", *value]
        return ["{", *members, "}"]
    if kind == "array":
        elements: list[str | Field] = []
        for position, child in enumerate(element_schemas(schema)):
            value = _pieces(child, (*path, position), fields, left_out)
            if value is not None:
                elements += ["," if elements else "", *value]
        return ["[", *elements, "]"]
    index = column_index(schema.get("index")) if isinstance(schema, dict) else None
    if kind not in LEAF_TYPES or index is None:
        left_out.append(Field(path, kind or "unknown", -1).name)
        return None
    field = Field(path, kind, index)
    fields.append(field)
    return [field]


def _row_array(rule: Schema) -> tuple[str, str] | None:
    """What stands before and behind the rows, if the request is nothing but one array of row objects, wrapped."""
    head, tail, node = "", "", rule
    while schema_type(node) == "object":
        members = properties(node)
        if len(members) != 1:
            return None
        ((name, node),) = members.items()
        head, tail = f"{head}{{{_text(name)}:", f"}}{tail}"
    elements = element_schemas(node) if schema_type(node) == "array" else []
    if len(elements) != 1 or schema_type(elements[0]) != "object":
        return None
    return f"{head}[", f"]{tail}"
