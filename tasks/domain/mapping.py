"""How the cells of a row become the fields of a request.

A mapping rule is the JSON Schema of the request in which every leaf (string, number, integer, boolean) has an
``index``: the CSV column, counted from 0, that fills it. :func:`generate` makes the rule from a schema,
:class:`Mapping` is a compiled rule that turns rows into JSON bodies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from json.encoder import encode_basestring
from typing import Any

from tasks.domain.cells import COLUMNS, OMITTED, SHOWN, Convert, EmptyCells, converter, problem, unseen_signs, visible
from tasks.domain.constants import constant_text, has_constant
from tasks.domain.csv_rows import Fault
from tasks.domain.errors import RowError
from tasks.domain.plain_text import has_halves

LEAF_TYPES = ("string", "number", "integer", "boolean")
_TYPES = {
    **dict.fromkeys(("str", "text", "char", "varchar"), "string"),
    **dict.fromkeys(("float", "double", "real", "decimal", "numeric", "float16", "float32", "float64"), "number"),
    **dict.fromkeys(("int", "long", "short", "bigint", "int8", "int16", "int32", "int64", "uint8"), "integer"),
    **dict.fromkeys(("bool", "boolen"), "boolean"),
    **dict.fromkeys(("dict", "map", "struct"), "object"),
    **dict.fromkeys(("list", "tuple"), "array"),
    **{name: name for name in (*LEAF_TYPES, "object", "array", "file")},
}
"""Type names of JSON Schema and of other languages, and JSON Schema's names for them."""

_INDEX = re.compile(r"[0-9]{1,18}")
_TEMPLATES_KEPT = 1000

Schema = dict[str, Any]
Path = tuple[str | int, ...]


def schema_type(schema: Any) -> str | None:
    """The type of a schema node: a leaf type, ``object``, ``array``, ``file``, or None if unknown.

    Of a list of types (``["number", "null"]``) the first known one counts. Without a type, ``properties`` or ``items``
    imply it. Type names of other languages (``float``, ``int``, ``str``) are read as JSON Schema's.
    """
    if not isinstance(schema, dict):
        return None
    declared = schema.get("type")
    for name in declared if isinstance(declared, list) else [declared]:
        if isinstance(name, str) and (known := _TYPES.get(name.strip().lower())):
            return known
    if declared is None and isinstance(schema.get("properties"), dict):
        return "object"
    if declared is None and element_schemas(schema):
        return "array"
    return None


def element_schemas(schema: Schema) -> list[Schema]:
    """The schemas of an array's elements: one if ``items`` is an object, all of a list; ``item`` is also accepted."""
    items = schema.get("items", schema.get("item"))
    if isinstance(items, dict):
        return [items]
    if isinstance(items, list):
        return [item for item in items if isinstance(item, dict)]
    return []


def properties(schema: Schema) -> dict[str, Any]:
    """The properties of an object schema, in order."""
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
    """The mapping rule of a request schema: ``index`` 0, 1, 2 ... on every leaf, in the order of the fields.

    Leaves with a constant get none.
    """
    return with_indexes(schema, count(), constants=False)


def with_indexes(schema: Schema, indexes: Iterator[int | None], *, constants: bool = True) -> Schema:
    """A schema with an ``index`` on every leaf, taken from ``indexes`` in the order of :func:`walk`.

    Leaves with a constant are passed over unless ``constants``.
    """

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
        if kind in LEAF_TYPES and (constants or not has_constant(schema)):
            return {**schema, "index": next(indexes)}
        return dict(schema)

    ruled: Schema = node(schema)
    return ruled


def column_index(value: Any) -> int | None:
    """``value`` as a column index: a whole number from 0 on (or its text, which real files have), else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    if isinstance(value, float) and value.is_integer():
        return int(value) if value >= 0 else None
    if isinstance(value, str) and _INDEX.fullmatch(value.strip()) is not None:
        return int(value)
    return None


def _text(text: str) -> str:
    """JSON text, unescaped where UTF-8 can encode it (half a surrogate pair can only be escaped)."""
    return json.dumps(text, ensure_ascii=has_halves(text))


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

    def converter(self, empty_cells: EmptyCells) -> Convert:
        """The function that converts its cells to JSON."""
        return converter(self.type, empty_cells, place_kept=not self.path or isinstance(self.path[-1], int))


class Mapping:
    """A compiled mapping rule: rows in, JSON bodies out.

    ``fields`` are the leaves that a column fills, in request order. ``left_out`` are the names of those omitted from
    every request because they have no usable index or (``of_no_type``) no known type.

    A body is joined from constant text and the converted cells. A number is sent as written in its cell (``3.0`` stays
    ``3.0``, nothing is rounded).
    """

    def __init__(self, rule: Schema, empty_cells: EmptyCells = "refuse") -> None:
        self.rule = rule
        fields: list[Field] = []
        left_out: list[str] = []
        pieces = _pieces(rule, (), fields, left_out)
        self.fields = tuple(fields)
        self.left_out = tuple(left_out)
        self.of_no_type = frozenset(
            Field(path, "", -1).name for path, node, kind in walk(rule) if kind is None and not has_constant(node)
        )
        self.columns = max((field.index + 1 for field in fields), default=1)
        """Fewest columns that a row must have."""
        self._steps = [(field.converter(empty_cells), field.index) for field in fields]
        array = _row_array(rule)
        self.takes_many_rows = array is not None
        """Whether the request has exactly one array of row objects, so that several rows can go in one request."""
        self._head, self._tail = array or ("", "")
        self._template = self._template_of(pieces)
        self._omits = empty_cells == "omit"
        self._without: dict[tuple[bool, ...], str] = {}
        """Templates for rows with omitted fields; the key holds, for each field, whether it is omitted."""

    def _template_of(self, pieces: Sequence[str | Field] | None) -> str:
        """A row's text in the request, with a placeholder for each field."""
        text = "".join("%s" if isinstance(piece, Field) else piece.replace("%", "%%") for piece in pieces or ["null"])
        escaped = [len(side.replace("%", "%%")) for side in (self._head, self._tail)]
        return text[escaped[0] : len(text) - escaped[1]]

    def _filled(self, values: Sequence[str]) -> str:
        """The text of a row from the value of each field, without OMITTED ones."""
        if not self._omits or OMITTED not in values:
            return self._template % tuple(values)
        omitted = tuple(value == OMITTED for value in values)
        template = self._without.get(omitted)
        if template is None:
            without = {field.path for field, out in zip(self.fields, omitted, strict=True) if out}
            template = self._template_of(_pieces(self.rule, (), [], [], without))
            if len(self._without) < _TEMPLATES_KEPT:  # the input decides how many there are
                self._without[omitted] = template
        return template % tuple(filter(None, values))

    def body(self, cells: Sequence[str], line: int) -> bytes:
        """The request body of one row, compact JSON in UTF-8; see :meth:`row_text` and :meth:`request`."""
        return self.request([self.row_text(cells, line)])

    def row_text(self, cells: Sequence[str], line: int) -> str:
        """A row's text in the request: an element of its array of rows, or the whole request if it has no such array.

        ``line`` is the row's line in its file, for messages. Raises RowError, naming line, column, field and value, if
        a column is missing or a cell cannot be converted.
        """
        texts = self.row_texts([cells])
        if texts is None:
            raise self._row_error(cells, line)
        return texts[0]

    def row_texts(self, rows: Sequence[Sequence[str]]) -> list[str] | None:
        """The :meth:`row_text` of many rows, made column by column: of 64 rows in a fifth of the time of single ones.

        None if rows must be converted one by one: they differ in width, or a column is missing, or a cell cannot be
        converted.
        """
        try:
            columns = [*zip(*rows, strict=True)] if len(rows[0]) <= 2 * len(self.fields) + 8 else None
            found = [
                # Where there are many columns, most are not needed.
                self._column(field.type, convert, [row[index] for row in rows] if columns is None else columns[index])
                for field, (convert, index) in zip(self.fields, self._steps, strict=True)
            ]
        except (ValueError, IndexError):
            return None
        if not found:
            return [self._template % ()] * len(rows)
        if self._omits and any(OMITTED in column for column in found):
            return [*map(self._filled, zip(*found, strict=True))]
        return [*map(self._template.__mod__, zip(*found, strict=True))]

    @staticmethod
    def _column(kind: str, convert: Convert, cells: Sequence[str]) -> Sequence[str]:
        """The cells of a column as JSON. Raises ValueError if one of them cannot be converted."""
        if kind == "string":
            return [*map(encode_basestring, cells)]
        text = "\n".join(cells)
        if COLUMNS[kind].fullmatch(text) is None or text.count("\n") != len(cells) - 1:
            return [*map(convert, cells)]
        return cells

    def request(self, texts: Sequence[str]) -> bytes:
        """The request body of one or several rows, from the :meth:`row_text` of each.

        Raises ValueError for several rows if the request has no array of rows (:attr:`takes_many_rows`).
        """
        if len(texts) > 1 and not self.takes_many_rows:
            raise ValueError("the request has no array of rows")
        return f"{self._head}{','.join(texts)}{self._tail}".encode()

    def _row_error(self, cells: Sequence[str], line: int) -> RowError:
        for field, (convert, index) in zip(self.fields, self._steps, strict=True):
            if index >= len(cells):
                return self.row_fault(Fault(len(cells), None, ""), line)
            cell = cells[index]
            try:
                convert(cell)
            except ValueError as error:
                return self.row_fault(Fault(index, cell, problem(field.type, cell) or str(error)), line)
        raise AssertionError("a row that converts has no error")  # pragma: no cover

    def row_fault(self, fault: Fault, line: int) -> RowError:
        """The error for a row's fault: line, column, field (if the column fills one), value and problem."""
        if fault.value is None and (missing := [field for field in self.fields if field.index >= fault.column]):
            problem = f"the row has {fault.column} columns only (columns are counted from 0)"
            return RowError(f"line {line}, column {missing[0].index}, field {missing[0].name}: {problem}")
        name = next((field.name for field in self.fields if field.index == fault.column), None)
        where = f"line {line}, column {fault.column}" + (f", field {name}" if name is not None else "")
        if fault.value is None:
            return RowError(f"{where}: {fault.problem}")
        return RowError(f"{where}: {visible(fault.value)} {fault.problem}{unseen_signs(fault.value[:SHOWN])}")


def _pieces(
    schema: Any,
    path: Path,
    fields: list[Field],
    left_out: list[str],
    without: Collection[Path] = (),
    chosen: Path | None = None,
) -> list[str | Field] | None:
    """The request as text and fields, except those in ``without``; None if the node is left out.

    With a ``chosen`` leaf, it is the only field, whatever the indexes.
    """
    kind = schema_type(schema)
    if has_constant(schema) and not properties(schema) and not element_schemas(schema) and kind in ("object", "array"):
        return [constant_text(schema, kind)]
    if kind == "object":
        members: list[str | Field] = []
        for name, child in properties(schema).items():
            value = _pieces(child, (*path, name), fields, left_out, without, chosen)
            if value is not None:
                members += ["," if members else "", _text(name), ":", *value]
        return ["{", *members, "}"]
    if kind == "array":
        elements: list[str | Field] = []
        for position, child in enumerate(element_schemas(schema)):
            value = _pieces(child, (*path, position), fields, left_out, without, chosen)
            if value is not None:
                elements += ["," if elements else "", *value]
        return ["[", *elements, "]"]
    index = column_index(schema.get("index")) if isinstance(schema, dict) else None
    if path in without:
        return None
    if chosen is not None and path == chosen:
        return [Field(path, "string", 0)]
    if has_constant(schema) and kind != "file":
        return [constant_text(schema, kind)]
    if kind not in LEAF_TYPES or index is None or chosen is not None:
        left_out.append(Field(path, kind or "unknown", -1).name)
        return None
    field = Field(path, kind, index)
    fields.append(field)
    return [field]


def around_leaf(schema: Schema, leaf: Path | None) -> tuple[str, str]:
    """The text of a request before and after one leaf; all else in it is constant."""
    head: list[str] = []
    pieces = iter(_pieces(schema, (), [], [], chosen=leaf) or ())
    for piece in pieces:
        if isinstance(piece, Field):
            break
        head.append(piece)
    return "".join(head), "".join(map(str, pieces))


def _row_array(rule: Schema) -> tuple[str, str] | None:
    """The text before and after the rows if the request has one array of row objects, and constants beside it.

    The array may be in objects of which the same is true.
    """
    head, tail, node = "", "", rule
    while schema_type(node) == "object":
        members = properties(node)
        open_ones = [name for name, child in members.items() if not has_constant(child)]
        if len(open_ones) != 1:
            return None
        texts = {
            name: f"{_text(name)}:" + (constant_text(child, schema_type(child)) if name not in open_ones else "")
            for name, child in members.items()
        }
        place = list(members).index(open_ones[0])
        before, after = ",".join([*texts.values()][: place + 1]), [*texts.values()][place + 1 :]
        head, tail = f"{head}{{{before}", f"{''.join(f',{text}' for text in after)}}}{tail}"
        node = members[open_ones[0]]
    elements = element_schemas(node) if schema_type(node) == "array" else []
    if len(elements) != 1 or schema_type(elements[0]) != "object":
        return None
    return f"{head}[", f"]{tail}"
